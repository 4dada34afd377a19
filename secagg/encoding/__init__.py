"""How vectors become bytes and back: rings, fixed-point codes, messages."""
