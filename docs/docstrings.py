"""Turns the marks of docstrings into Markdown, for the Python API's page."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Marks(griffe.Extension):
    """Roles become code, and a double colon before an example a single one."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of ``obj``."""
        if obj.docstring is not None:
            text = re.sub(r":\w+:`~?\.*([^`]+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
