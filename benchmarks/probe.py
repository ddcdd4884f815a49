"""The result of one comparison of two forms of a graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """One comparison: how often ``candidate`` runs while ``baseline`` runs once."""

    what: str
    baseline_us: float
    speedup: float
