"""How weights and activations can be stored, and the passes that do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from ..backends.errors import UsageError

Scheme: TypeAlias = Literal["int8", "int8-dynamic", "int8-weights", "int4", "fp16", "bf16"]

_AFTER: Final = {"int8": ",refit"}
"""What comes after the pass."""

_PASSES: Final[dict[str, tuple[str, str, dict[str, str]]]] = {
    "int8": ("fold-batch-norm,equalize{spread=16},", "insert-qdq", {"where": "pays"}),
    "int8-dynamic": ("", "quantize-dynamic", {}),
    "int8-weights": ("", "quantize-weights", {"bits": "8"}),
    "int4": ("", "quantize-weights", {}),
    "fp16": ("", "float16", {}),
    "bf16": ("", "float16", {"type": "bfloat16"}),
}
"""What comes before the pass, the pass, and its options."""


def passes_of(
    scheme: str, options: Mapping[str, str | tuple[str, ...]] | None = None, *, refit: bool = True
) -> str:
    """Pipeline text for ``scheme`` with ``options`` of its pass, everything else by default.

    Without ``refit`` nothing is fitted after rounding.

    Raises:
        UsageError: There is no such scheme.
    """
    if scheme not in _PASSES:
        raise UsageError(
            f"there is no quantization scheme {scheme!r}",
            hint=f"it is one of {', '.join(_PASSES)}",
        )
    from ..passes.base import option_text

    before, name, own = _PASSES[scheme]
    given = {key: value for key, value in (options or {}).items() if value}
    inner = ",".join(f"{key}={option_text(value)}" for key, value in {**own, **given}.items())
    after = _AFTER.get(scheme, "") if refit else ""
    return f"{before}{name}{{{inner}}}{after}" if inner else f"{before}{name}{after}"
