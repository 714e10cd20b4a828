"""Data sets that the package makes or fetches, one module each."""
