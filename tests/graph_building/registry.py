"""Every operator, or small group of them, that a random graph can be extended by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.graph_building.builder import DOUBLE, Style

Extend = TypeVar("Extend", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """A way to extend a graph.

    Attributes:
        extend: Adds nodes to the scope that it is called with.
        since: The first version of ONNX's operators that it works in.
        double: Whether ONNX Runtime has kernels of it for double.
        weight: How much likelier it is than others.
    """

    extend: Callable[..., Any]
    since: int
    double: bool
    weight: int

    def works_in(self, style: Style) -> bool:
        """Whether a model of that style can have it."""
        return self.since <= style.opset and (self.double or style.dtype != DOUBLE)


ENTRIES: dict[str, Entry] = {}


def operator(*, since: int = 9, double: bool = True, weight: int = 1) -> Callable[[Extend], Extend]:
    """Register a function that extends the scope that it is called with."""

    def register(extend: Extend) -> Extend:
        ENTRIES[extend.__name__] = Entry(extend, since, double, weight)
        return extend

    return register
