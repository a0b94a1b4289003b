"""The primer, and later the lessons that run."""
