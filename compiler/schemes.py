"""How weights and activations can be stored, and the passes that do it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from ..backends.errors import UsageError

Scheme: TypeAlias = Literal["int8", "int8-weights", "int4"]

_PASSES: Final[dict[str, str]] = {
    "int8": "fold-batch-norm,insert-qdq",
    "int8-weights": "quantize-weights{bits=8}",
    "int4": "quantize-weights",
}


def passes_of(scheme: str) -> str:
    """Pipeline text for ``scheme``, everything else as it is by default.

    Raises:
        UsageError: There is no such scheme.
    """
    if scheme not in _PASSES:
        raise UsageError(
            f"there is no quantization scheme {scheme!r}",
            hint=f"it is one of {', '.join(_PASSES)}",
        )
    return _PASSES[scheme]
