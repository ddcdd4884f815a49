"""Rewrites that make one model of several."""
