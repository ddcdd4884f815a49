"""Models from files and into files: whole, checked, and never half-written."""

from __future__ import annotations

from .read import files_of, load, load_proto, warnings_of
from .repair import finished
from .write import check_writable, save

__all__ = ["check_writable", "files_of", "finished", "load", "load_proto", "save", "warnings_of"]
