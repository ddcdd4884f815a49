"""Questions about a graph that more than one pass asks."""
