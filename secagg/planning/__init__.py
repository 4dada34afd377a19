"""Planning a round before it is built."""
