"""Whether a model answers as another does, on inputs of the corpus: eight, at all their sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice

import onnx_ir as ir

from onnxpress.backends.base import Feeds
from onnxpress.compiler.verify import Verifier
from onnxpress.compiler.verify.verification import Verification

from .corpus import CorpusModel

INPUTS = 8
"""On how many seeded inputs models are compared at least; the seeds take turns with the sizes."""


def seeded(model: CorpusModel) -> list[Feeds]:
    """:data:`INPUTS` different inputs, the first ones of every size that ``model`` is run at."""
    return list(islice(chain.from_iterable(map(model.feeds, count())), INPUTS))


@dataclass(frozen=True)
class Fixed:
    """Feeds at hand, as data."""

    feeds: Sequence[Feeds]

    def batches(self, size: int) -> Iterator[Feeds]:
        """Yield the feeds as they are, whatever ``size`` is."""
        del size
        yield from self.feeds


def verifier(model: CorpusModel, original: ir.Model) -> Verifier:
    """What compares others with ``original`` on the inputs of ``model``.

    The rules are those of onnxpress: what is right is what ONNX Runtime answers without
    optimizations, others answer without and with them, tolerances come from the number format.
    """
    return Verifier(original, data=Fixed(seeded(model)), cases=0)


def verdict(found: Verification) -> tuple[str, str]:
    """The status and the reason for it; ``ok`` only where all of all outputs was compared."""
    if found.status == "ok" and (found.not_run or found.cases < INPUTS):
        return "not-run", "; ".join(found.not_run) or f"only {found.cases} inputs were run"
    return found.status, found.reason
