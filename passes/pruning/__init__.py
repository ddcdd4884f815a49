"""Rewrites that remove whole channels."""
