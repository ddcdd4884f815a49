"""Labels for the indices of axes, joined where they have to go together."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""One label per index of an axis; joined labels go together."""


class LabelSets:
    """A union-find over labels, each set with a reason why it must not be removed, if any."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._frozen: dict[int, str] = {}

    def new(self, size: int) -> Labels:
        """Labels that no axis has yet."""
        start = len(self._parents)
        self._parents.extend(range(start, start + size))
        return np.arange(start, start + size)

    def join(self, first: Labels, second: Labels) -> None:
        """Join the labels that stand at the same place."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            root, other = self.root(a), self.root(b)
            if root != other:
                self._parents[other] = root
                if other in self._frozen:
                    self._frozen.setdefault(root, self._frozen.pop(other))

    def freeze(self, labels: Labels, because: str) -> None:
        """Forbid the removal of ``labels``; the first reason counts."""
        for label in labels.tolist():
            self._frozen.setdefault(self.root(label), because)

    def frozen(self, label: int) -> str:
        """Why ``label`` must not be removed; empty if it may."""
        return self._frozen.get(self.root(label), "")

    def root(self, label: int) -> int:
        """The label that stands for all that ``label`` is joined with."""
        parents = self._parents
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label
