"""What a pass says of itself, for ``onnxpress passes`` and the generated reference."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

from ..passes import registry
from ..passes.base import Pass, option_text


def describe(name: str) -> dict[str, Any]:
    """The pass called ``name``: contract, origin, documentation and options with defaults.

    Raises:
        PipelineError: There is no such pass.
    """
    cls = registry.find(name)
    documentation = inspect.cleandoc(cls.__doc__ or "")
    found: dict[str, Any] = {
        "name": name,
        "summary": documentation.partition("\n")[0].replace("``", ""),
        "documentation": documentation,
        "origin": registry.origin(name),
        "contract": "exact",
        "changes": "",
        "needs_data": False,
        "options": [],
    }
    if issubclass(cls, Pass):
        found["contract"] = "exact" if cls.contract.exact else "approximate"
        found["changes"] = cls.contract.changes
        found["needs_data"] = cls.needs_data
        found["options"] = [
            {
                "name": option.name,
                "type": option.type
                if isinstance(option.type, str)
                else inspect.formatannotation(option.type),
                "default": "required" if option.default is MISSING else option_text(option.default),
            }
            for option in fields(cls)
        ]
    return found
