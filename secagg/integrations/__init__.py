"""One package per outside system; each imports the core and is never imported by it."""
