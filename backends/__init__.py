"""Runs and times models; knows nothing of passes."""
