"""Rewrites, and the questions about graphs that they share; knows nothing of the command line."""
