"""Cryptographic primitives, one home each; protocols compose them and never touch the libraries underneath."""
