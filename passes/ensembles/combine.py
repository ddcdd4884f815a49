"""How the answers of several models become one, and which answers can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import onnx_ir as ir

from ...backends.errors import UsageError
from .align import described
from .members import Member

Combine: TypeAlias = Literal[
    "mean",
    "weighted",
    "vote",
    "softmax-mean",
    "geometric",
    "max",
    "median",
    "stack",
    "logistic",
    "detections",
    "none",
]

LEAST_OPSET: Final[dict[Combine, int]] = {
    "mean": 7,
    "weighted": 7,
    "vote": 11,
    # Before 13, Softmax normalizes over all axes behind the one it names.
    "softmax-mean": 13,
    "geometric": 7,
    "max": 8,
    "median": 13,
    "stack": 7,
    "logistic": 13,
    "detections": 13,
    "none": 7,
}
"""The first version of the standard domain in which each combiner can be written."""

UNCERTAINTY_OPSET: Final = 13
"""The first version in which the variance and the disagreement can be written."""

ALONG_CLASSES: Final[frozenset[Combine]] = frozenset({"vote", "softmax-mean", "stack", "logistic"})
"""The combiners that need a last axis of classes."""

FITTED: Final[frozenset[Combine]] = frozenset({"stack", "logistic"})
"""The combiners that are nothing before they are fitted to data."""

FLOATS = {
    ir.DataType.FLOAT: ir.DataType.FLOAT,
    ir.DataType.FLOAT16: ir.DataType.FLOAT,
    ir.DataType.BFLOAT16: ir.DataType.FLOAT,
    ir.DataType.DOUBLE: ir.DataType.DOUBLE,
}
"""The types that can be combined, each with the one that its sum is computed in."""


def check_combinable(
    members: Sequence[Member], answers: Sequence[Sequence[ir.Value]], combine: Combine
) -> None:
    """Check that the answers can be combined, position by position.

    Args:
        members: Whose answers they are, for messages.
        answers: Per output of the first member, the values of all members.
        combine: Anything but ``none``.

    Raises:
        UsageError: An answer has a type that cannot be averaged, or a shape that does not fit.
    """
    for values in answers:
        for member, value in zip(members, values, strict=True):
            if reason := _unfit(value, values[0], combine):
                raise UsageError(
                    f"the output {described(value)} of member {member.name!r} cannot be combined "
                    f"by {combine}: {reason}",
                    hint="drop that output from every member, or keep them all apart with 'none'",
                )


def _unfit(value: ir.Value, first: ir.Value, combine: Combine) -> str:
    if not isinstance(value.type, ir.TensorType):
        return "it is not a tensor"
    if value.dtype not in FLOATS:
        return "labels, indices and text have no mean; only float outputs do"
    if value.shape is None:
        return ""
    if first.shape is not None and (
        len(value.shape) != len(first.shape)
        or any(
            isinstance(a, int) and isinstance(b, int) and a != b
            for a, b in zip(value.shape, first.shape, strict=True)
        )
    ):
        return f"the first member's is {described(first)}"
    if combine in ALONG_CLASSES and not has_classes(value):
        return "it has no class axis along which to do so"
    if combine in FITTED and not isinstance(value.shape[-1], int):
        return "the length of its last axis is not fixed"
    return ""


def has_classes(value: ir.Value) -> bool:
    """Whether the last axis of ``value`` can be one of classes: not the axis that counts samples.

    A vector of known length is the answer to one sample; where no shape is known, it may be.
    """
    shape = value.shape
    if shape is None:
        return True
    return len(shape) > 1 or (len(shape) == 1 and isinstance(shape[0], int))


def mixture(members: Sequence[Member], answers: Sequence[Sequence[ir.Value]]) -> list[str]:
    """A sentence for each output that some members end in Softmax or Sigmoid and others do not."""
    notes = []
    for values in answers:
        ends = [node.op_type if (node := value.producer()) else "" for value in values]
        raw = [m.name for m, end in zip(members, ends, strict=True) if end not in PROBABILITIES]
        if 0 < len(raw) < len(members):
            notes.append(
                f"{values[0].name!r} may mix probabilities with raw scores ({', '.join(raw)}): "
                "raw scores have more weight in a mean; 'vote' is not affected"
            )
    return notes


PROBABILITIES: Final = frozenset({"Softmax", "Sigmoid"})
"""The operators whose answers are probabilities."""
