"""Labels for the indices of axes, joined where they have to go together."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""One label per index of an axis; joined labels go together."""

_FIRST_ROOM = 1024


class LabelSets:
    """A union-find over labels, each set with a reason why it must not be removed, if any.

    Axes have thousands of labels, so that everything is done for whole arrays of them.
    """

    def __init__(self) -> None:
        self._count = 0
        self._parents = np.arange(_FIRST_ROOM)
        # For each label that stands for others, the number of a reason; 0 for none.
        self._reasons = {"": 0}
        self._frozen = np.zeros(_FIRST_ROOM, np.int64)

    def new(self, size: int) -> Labels:
        """Labels that no axis has yet."""
        start, self._count = self._count, self._count + size
        if self._count > len(self._parents):
            more = max(self._count, 2 * len(self._parents)) - len(self._parents)
            added = np.arange(len(self._parents), len(self._parents) + more)
            self._parents = np.concatenate([self._parents, added])
            self._frozen = np.concatenate([self._frozen, np.zeros(more, np.int64)])
        return np.arange(start, self._count)

    def join(self, first: Labels, second: Labels) -> None:
        """Join the labels that stand at the same place."""
        if len(first) != len(second):
            raise ValueError(f"{len(first)} labels cannot be joined with {len(second)}")
        while True:
            roots, others = self.roots(first), self.roots(second)
            apart = roots != others
            if not apart.any():
                return
            roots, others = roots[apart], others[apart]
            # Always the later below the earlier, so that nothing goes in a circle.
            _, once = np.unique(np.maximum(roots, others), return_index=True)
            roots, others = roots[once], others[once]
            above = np.minimum(roots, others)
            self._parents[np.maximum(roots, others)] = above
            frozen = self._frozen[roots]
            frozen = np.where(frozen, frozen, self._frozen[others])[::-1]
            self._frozen[above[::-1][frozen > 0]] = frozen[frozen > 0]

    def freeze(self, labels: Labels, because: str) -> None:
        """Forbid the removal of ``labels``; the first reason counts."""
        roots = self.roots(labels)
        roots = roots[self._frozen[roots] == 0]
        self._frozen[roots] = self._reasons.setdefault(because, len(self._reasons))

    def frozen(self, labels: Labels) -> Labels:
        """For each of ``labels`` the number, in :meth:`reasons`, of why it must not be removed."""
        return self._frozen[self.roots(labels)]

    def reasons(self) -> list[str]:
        """Every reason that was given; the first is empty, that of what may be removed."""
        return list(self._reasons)

    def roots(self, labels: Labels) -> Labels:
        """For each of ``labels``, the one that stands for all that it is joined with."""
        found = self._parents[labels]
        while True:
            above = self._parents[found]
            if np.array_equal(above, found):
                return found
            self._parents[labels] = found = above
