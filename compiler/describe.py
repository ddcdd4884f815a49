"""What a pass says of itself, for ``onnxpress passes`` and the generated reference."""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from dataclasses import MISSING, fields
from typing import Any

from ..passes import registry
from ..passes.base import Pass, option_text

# A list of options after "Options:", or Google's section "Attributes:".
_OPTIONS = re.compile(r"^(?:Options:\n\n|Attributes:\n)((?:[- ] .*(?:\n|$))+)\n*", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?\.*([^`]+)`")


def describe(name: str) -> dict[str, Any]:
    """The pass called ``name``: contract, origin, documentation and options with defaults.

    ``text`` is the documentation without the list of options, whose entries are the options'
    ``meaning``.

    Raises:
        PipelineError: There is no such pass.
    """
    cls = registry.find(name)
    documentation = _ROLE.sub(r"``\1``", inspect.cleandoc(cls.__doc__ or ""))
    text, meanings = _split(documentation)
    found: dict[str, Any] = {
        "name": name,
        "summary": _summary(cls, documentation),
        "documentation": documentation,
        "text": text,
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
        kinds = typing.get_type_hints(cls)
        found["options"] = [
            {
                "name": option.name,
                "type": _type_text(kinds[option.name]),
                "default": "required" if option.default is MISSING else option_text(option.default),
                "meaning": meanings.get(option.name, ""),
            }
            for option in fields(cls)
        ]
    return found


def _summary(cls: type, documentation: str) -> str:
    """One sentence: what the class gives as its summary, else how its documentation begins."""
    first = documentation.partition("\n\n")[0].replace("\n", " ").replace("``", "")
    text = getattr(cls, "summary", "") or first
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _split(documentation: str) -> tuple[str, dict[str, str]]:
    """The text without its section on options, and what that says of each."""
    section = _OPTIONS.search(documentation)
    if section is None:
        return documentation, {}
    meanings = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(section[1]).strip()):
        names, _, meaning = entry.removeprefix("- ").partition(": ")
        for name in re.findall(r"\w+", names):
            meanings[name] = " ".join(meaning.split())
    text = documentation[: section.start()] + documentation[section.end() :]
    return text.strip(), meanings


def _type_text(kind: Any) -> str:
    """``l2|l1|random`` for a choice, else the type as it is written."""
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(map(str, typing.get_args(kind)))
    return inspect.formatannotation(kind)
