"""The package's version, alone in a file so that a build reads it without importing the library."""

__version__ = "0.1.0.dev0"
