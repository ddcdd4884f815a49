"""Models from files and into files: whole, checked, and never half-written."""

from __future__ import annotations

from .read import load
from .write import save

__all__ = ["load", "save"]
