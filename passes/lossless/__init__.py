"""Rewrites that keep the answers."""
