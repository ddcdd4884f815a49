"""Recipes: a TOML file that holds what would otherwise be said on the command line."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..backends.errors import UsageError
from .pipeline import parse


@dataclass(frozen=True)
class Recipe:
    """The contents of a recipe; what is ``None`` is left to the command line or its default.

    ::

        target = "cpu"
        passes = "fold-batch-norm,insert-qdq{method=minmax}"
        data = "calibration.npz"      # relative to the recipe's folder

        [dims]
        batch = 1
    """

    target: str | None = None
    level: int | None = None
    passes: str | None = None
    quantize: str | None = None
    refit: bool | None = None
    macs: float | None = None
    data: str | None = None
    dims: dict[str, int] = field(default_factory=dict)
    seed: int | None = None
    verify: bool | None = None
    time: bool | None = None


_TYPES: dict[str, type | tuple[type, ...]] = {
    "target": str,
    "level": int,
    "passes": str,
    "quantize": str,
    "refit": bool,
    "macs": (int, float),
    "data": str,
    "dims": dict,
    "seed": int,
    "verify": bool,
    "time": bool,
}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        UsageError: It is missing, is not TOML, has a key that no recipe has, or a value of the
            wrong type.
        PipelineError: Its ``passes`` are not well formed.
    """
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the recipe {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the recipe {path} is not TOML: {error}") from error
    known = [one.name for one in fields(Recipe)]
    for key, value in found.items():
        if key not in known:
            raise UsageError(
                f"the recipe {path} has an unknown key {key!r}",
                hint=f"a recipe's keys are {', '.join(known)}",
            )
        kind = _TYPES[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UsageError(f"the recipe {path} gives {key} a {type(value).__name__}: {value!r}")
    for name, size in found.get("dims", {}).items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UsageError(f"the recipe {path} gives the dimension {name!r} the size {size!r}")
    if "passes" in found:
        parse(found["passes"])
    if "data" in found and ":" not in found["data"]:
        found["data"] = str(path.parent / found["data"])
    return Recipe(**found)
