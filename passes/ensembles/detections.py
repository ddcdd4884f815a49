"""Combine what detectors find: all boxes together, and of those that overlap only the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from ...backends.errors import UsageError
from .align import described
from .combine import FLOATS
from .combiners import Writer
from .members import Member, unused

_MOST: Final = 2**31 - 1
_LOWEST: Final = float(np.finfo(np.float32).min)
_HINT: Final = (
    "a detector answers with boxes [.., n, 4] and either scores of each class, [batch, n, classes] "
    "or [batch, classes, n], or one score and one label a box, [.., n]; split what else it answers "
    "with, or keep the members apart with 'none'"
)


@dataclass(frozen=True)
class Suppression:
    """Non-maximum suppression, within each class of each sample.

    Attributes:
        iou: A box goes where a better one of its class overlaps it by more than this, as
            intersection over union.
        score: Boxes go whose score is not above this; ``None`` keeps all.
        center: Boxes are ``x, y, width, height`` around their center, not two opposite corners.
    """

    iou: float
    score: float | None = None
    center: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.iou <= 1:
            raise UsageError(f"an overlap is from 0 to 1, not {self.iou}")
        if self.score is not None and not math.isfinite(self.score):
            raise UsageError(f"the least score has to be finite, not {self.score}")


@dataclass(frozen=True)
class Roles:
    """Which output is what.

    Attributes:
        boxes: The place of the boxes, ``[.., n, 4]``.
        scores: The place of the scores.
        labels: The place of the labels, if scores are one a box and not one a class.
        batched: Whether there is an axis of samples in front.
        last: Whether scores are ``[batch, n, classes]``, else ``[batch, classes, n]``.
    """

    boxes: int
    scores: int
    labels: int | None
    batched: bool
    last: bool


def roles_of(members: Sequence[Member], answers: Sequence[Sequence[ir.Value]]) -> Roles:
    """What each output of the first member is, and so of all.

    Args:
        members: Whose outputs they are.
        answers: Per output of the first member, the values of all members.

    Raises:
        UsageError: One is neither boxes, scores nor labels, or differs between members.
    """
    first = [values[0] for values in answers]
    boxes = _only("boxes", [at for at, one in enumerate(first) if _is_boxes(one)], members, first)
    rank = len(_shape(first[boxes]))
    labels = [at for at, one in enumerate(first) if _is_labels(one, rank - 1)]
    scores = [
        at
        for at, one in enumerate(first)
        if at != boxes and one.dtype in FLOATS and len(_shape(one)) == rank - bool(labels)
    ]
    label = _only("labels", labels, members, first) if labels else None
    score = _only("scores", scores, members, first)
    for at, one in enumerate(first):
        if at not in {boxes, score, label}:
            raise _unlike(members[0], one, "it is neither boxes nor scores nor labels")
    if label is None and rank != 3:
        raise _unlike(members[0], first[score], "scores of each class need an axis of samples")
    ways = set()
    for index, member in enumerate(members):
        own = [values[index] for values in answers]
        for at, value in enumerate(own):
            _check_alike(member, value, first[at], batched=rank == 3)
        if not _is_boxes(own[boxes]):
            raise _unlike(member, own[boxes], "boxes have four numbers each")
        ways.add(True if label is not None else _classes_last(member, own[boxes], own[score]))
    if len(ways) > 1:
        raise _unlike(members[0], first[score], "in another member classes and boxes are swapped")
    last = ways.pop()
    if label is None:
        classes = {_shape(value)[2 if last else 1] for value in answers[score]}
        if len({size for size in classes if isinstance(size, int)}) > 1:
            raise _unlike(members[0], first[score], "another member knows other classes")
    return Roles(boxes, score, label, rank == 3, last)


def _shape(value: ir.Value) -> list[int | ir.SymbolicDim]:
    return [] if value.shape is None else list(value.shape)


def _is_boxes(value: ir.Value) -> bool:
    shape = _shape(value)
    return value.dtype in FLOATS and len(shape) in {2, 3} and shape[-1] == 4


def _is_labels(value: ir.Value, rank: int) -> bool:
    return value.dtype in {ir.DataType.INT64, ir.DataType.INT32} and len(_shape(value)) == rank


def _only(
    what: str, found: Sequence[int], members: Sequence[Member], first: Sequence[ir.Value]
) -> int:
    """The one of ``found``, or the one that is called so."""
    word = {"boxes": "box"}.get(what, what[:-1])
    called = [at for at in found if word in (members[0].output_names[at]).lower()]
    chosen = called if len(found) > 1 else found
    if len(chosen) != 1:
        listed = ", ".join(map(described, first))
        why = "none of them is" if not found else "more than one of them may be"
        raise UsageError(
            f"member {members[0].name!r} answers with {listed}: {why} {what}", hint=_HINT
        )
    return chosen[0]


def _check_alike(member: Member, value: ir.Value, first: ir.Value, *, batched: bool) -> None:
    """``value`` has the type and rank of ``first``, and as many samples."""
    shape, other = _shape(value), _shape(first)
    alike = value.type == first.type and len(shape) == len(other)
    samples = {size for size in shape[:1] + other[:1] if isinstance(size, int)}
    if not alike or (batched and len(samples) > 1):
        raise _unlike(member, value, f"the first member's is {described(first)}")


def _classes_last(member: Member, boxes: ir.Value, scores: ir.Value) -> bool:
    """Whether the scores are by box and then by class."""
    count = _shape(boxes)[1]
    by_box = [_same(size, count) for size in _shape(scores)[1:]]
    if sum(by_box) != 1:
        raise _unlike(
            member, scores, f"which of its axes counts the boxes {described(boxes)} is not clear"
        )
    return by_box[0]


def _same(size: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> bool:
    if isinstance(size, ir.SymbolicDim) and size.value is None:
        return False
    return size == other


def _unlike(member: Member, value: ir.Value, reason: str) -> UsageError:
    return UsageError(
        f"the output {described(value)} of member {member.name!r} cannot be combined by "
        f"detections: {reason}",
        hint=_HINT,
    )


def add_detections(
    graph: ir.Graph,
    answers: Sequence[Sequence[ir.Value]],
    roles: Roles,
    names: Sequence[str],
    taken: set[str],
    scope: str,
    suppression: Suppression | None,
) -> list[ir.Value]:
    """Append nodes that put the boxes of all members together; the outputs.

    With ``suppression``, what stays is one row a box, by sample, class and falling score, and what
    no output says is one more: ``classes``, where scores were one a class, and ``samples``, where
    there is an axis of samples.

    Args:
        graph: Where the values are; nodes are appended.
        answers: Per output, the values of all members.
        roles: What each output is.
        names: What to call each.
        taken: Names that others may not have; grows.
        scope: Goes before the names of new nodes, values and initializers, with a ``/``.
        suppression: Which boxes go, if any.
    """
    writer = Writer(graph, f"{scope}/detections", answers[roles.boxes])
    joined = [_joined(writer, values, _axis(at, roles)) for at, values in enumerate(answers)]
    if suppression is None:
        return [
            _named(writer, value, name, values[0], _sizes(values, at, roles))
            for at, (value, name, values) in enumerate(zip(joined, names, answers, strict=True))
        ]
    boxes, scores, kept = _selected(writer, joined, roles, suppression)
    found = []
    for at, (name, values) in enumerate(zip(names, answers, strict=True)):
        if at == roles.labels:
            value = _column(writer, kept, 1)
        else:
            value = boxes if at == roles.boxes else scores
        sizes: list[int | str | None] = [None, 4] if at == roles.boxes else [None]
        found.append(_named(writer, value, name, values[0], sizes))
    for role, at in (("classes", 1), ("samples", 0)):
        if roles.labels is None if role == "classes" else roles.batched:
            value = _column(writer, kept, at)
            found.append(_named(writer, value, unused(role, taken), value, [None]))
    return found


def _column(writer: Writer, kept: ir.Value, at: int) -> ir.Value:
    """Of what stays, the samples (0), classes (1) or places (2)."""
    value = writer.op("Gather", kept, writer.integers("column", at), axis=1)
    value.type = ir.TensorType(ir.DataType.INT64)
    return value


def _axis(at: int, roles: Roles) -> int:
    """Along which boxes are counted."""
    front = int(roles.batched)
    return 2 if at == roles.scores and roles.labels is None and not roles.last else front


def _sizes(values: Sequence[ir.Value], at: int, roles: Roles) -> list[int | str | None]:
    axis = _axis(at, roles)
    counts = [_shape(value)[axis] for value in values]
    total = [count for count in counts if isinstance(count, int)]
    sizes: list[int | str | None] = [
        size if isinstance(size, int) else size.value for size in _shape(values[0])
    ]
    sizes[axis] = sum(total) if len(total) == len(counts) else None
    return sizes


def _joined(writer: Writer, values: Sequence[ir.Value], axis: int) -> ir.Value:
    value = writer.op("Concat", *values, axis=axis)
    value.type = values[0].type
    return value


def _single(writer: Writer, value: ir.Value, like: ir.Value) -> ir.Value:
    """``value``, of the type of ``like``, in float32, which is what is compared."""
    if like.dtype == ir.DataType.FLOAT:
        return value
    return writer.op("Cast", value, to=int(ir.DataType.FLOAT))


def _named(
    writer: Writer, value: ir.Value, name: str, like: ir.Value, sizes: Sequence[int | str | None]
) -> ir.Value:
    """``value`` as an output of the type of ``like``."""
    if value.dtype is not None and like.dtype is not None and value.dtype != like.dtype:
        value = writer.op("Cast", value, to=int(like.dtype))
    value.name, value.type, value.shape = name, like.type, ir.Shape(sizes)
    return value


def _selected(
    writer: Writer, joined: Sequence[ir.Value], roles: Roles, suppression: Suppression
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Of what stays: the boxes, the scores, and ``[k, 3]`` samples, classes and places."""
    boxes, scores = joined[roles.boxes], joined[roles.scores]
    labels = None if roles.labels is None else joined[roles.labels]
    front, second = writer.integers("front", [0]), writer.integers("second", [1])
    if not roles.batched:
        boxes, scores = writer.op("Unsqueeze", boxes, front), writer.op("Unsqueeze", scores, front)
        labels = None if labels is None else writer.op("Unsqueeze", labels, front)
    if labels is not None:
        single = _single(writer, scores, joined[roles.scores])
        by_class = _by_class(writer, single, labels, second)
    elif roles.last:
        scores = by_class = writer.op("Transpose", scores, perm=[0, 2, 1])
    else:
        by_class = scores
    if labels is None:
        by_class = _single(writer, by_class, joined[roles.scores])
    least = _LOWEST if suppression.score is None else suppression.score
    kept = writer.op(
        "NonMaxSuppression",
        _single(writer, boxes, joined[roles.boxes]),
        by_class,
        writer.integers("most", [_MOST]),
        writer.constant("iou", np.array([suppression.iou]), ir.DataType.FLOAT),
        writer.constant("least", np.array([least]), ir.DataType.FLOAT),
        center_point_box=int(suppression.center),
    )
    of_box = writer.op("Gather", kept, writer.integers("of_box", [0, 2]), axis=1)
    scored = writer.op("GatherND", scores, kept if labels is None else of_box)
    return writer.op("GatherND", boxes, of_box), scored, kept


def _by_class(writer: Writer, scores: ir.Value, labels: ir.Value, second: ir.Value) -> ir.Value:
    """``[batch, classes, n]``: the score of each box for its label, for others the least."""
    if labels.dtype != ir.DataType.INT64:
        labels = writer.op("Cast", labels, to=int(ir.DataType.INT64))
    zero, one = writer.integers("zero", 0), writer.integers("one", 1)
    flat = writer.op("Reshape", labels, writer.integers("flat", [-1]))
    # There may be no box at all: a label of 0 more changes nothing.
    some = writer.op("Concat", flat, writer.integers("some", [0]), axis=0)
    count = writer.op("Add", writer.op("ReduceMax", some, keepdims=0), one)
    classes = writer.op("Unsqueeze", writer.op("Range", zero, count, one), second)
    chosen = writer.op("Equal", writer.op("Unsqueeze", labels, second), classes)
    spread = writer.op("Unsqueeze", scores, second)
    return writer.op("Where", chosen, spread, writer.constant("none", _LOWEST, ir.DataType.FLOAT))
