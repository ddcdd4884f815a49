"""Detections of several members together, and non-maximum suppression as NumPy does it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.errors import UsageError
from onnxpress.backends.ort import session_of
from onnxpress.passes.ensembles.detections import Suppression
from onnxpress.passes.ensembles.merge import merge

BY_CLASS = "(float[b,{n},4] boxes, float[b,{n},3] scores)"
CLASSES_FIRST = "(float[b,{n},4] boxes, float[b,3,{n}] scores)"
LABELLED = "(float[{n},4] boxes, int64[{n}] labels, float[{n}] scores)"
LABELLED_BATCH = "(float[b,{n},4] boxes, float[b,{n}] scores, int32[b,{n}] labels)"


def detector(outputs: str, n: int | str = "n", opset: int = 17, prefix: str = "") -> ir.Model:
    """A model that answers what it is fed: its inputs are called ``in_`` and the output's name."""
    declared = outputs.format(n=n)
    names = [one.split()[-1] for one in declared.strip("()").split(", ")]
    inputs = declared
    for name in names:
        inputs = inputs.replace(f" {name}", f" {prefix}in_{name}")
    body = " ".join(f"{name} = Identity ({prefix}in_{name})" for name in names)
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : {opset}]> m {inputs} => {declared} {{ {body} }}'
    )


def merged(outputs: str, opset: int = 17, suppression: Suppression | None = None) -> ir.Model:
    """Two members that read the same, of which the second moves its boxes a little."""
    models = [detector(outputs, opset=opset) for _ in range(2)]
    first = models[1].graph[0]
    shift = ir.Value(name="shift", const_value=ir.tensor(np.float32(0.25), name="shift"))
    shift.type, shift.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
    models[1].graph.register_initializer(shift)
    moved = ir.node("Add", [first.inputs[0], shift], name="moved")
    moved.outputs[0].name = "moved"
    models[1].graph.insert_before(first, moved)
    first.replace_input_with(0, moved.outputs[0])
    return merge(models, names="ab", combine="detections", suppression=suppression).model


def answers(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    return session_of(model, SessionConfig(level="disabled", threads=1)).run(feeds)


def overlap(one: Array, other: Array) -> float:
    low = np.maximum(np.minimum(one[:2], one[2:]), np.minimum(other[:2], other[2:]))
    high = np.minimum(np.maximum(one[:2], one[2:]), np.maximum(other[:2], other[2:]))
    common = float(np.prod(np.maximum(high - low, 0)))
    areas = [float(np.prod(np.abs(box[2:] - box[:2]))) for box in (one, other)]
    return common / (sum(areas) - common) if common > 0 else 0.0


def suppressed(boxes: Array, by_class: Array, how: Suppression) -> list[tuple[int, int, int]]:
    """Sample, class and place of what stays: ``boxes`` [b, n, 4], ``by_class`` [b, classes, n]."""
    if how.center:
        center, half = boxes[..., :2], boxes[..., 2:] / 2
        boxes = np.concatenate([center - half, center + half], -1)
    found = []
    for sample in range(len(boxes)):
        for kind in range(by_class.shape[1]):
            scores = by_class[sample, kind]
            kept: list[int] = []
            for at in np.argsort(-scores, kind="stable"):
                if not np.isfinite(scores[at]) or (
                    how.score is not None and scores[at] <= how.score
                ):
                    continue
                box = boxes[sample, at]
                if all(overlap(boxes[sample, one], box) <= how.iou for one in kept):
                    kept.append(int(at))
            found += [(sample, kind, at) for at in kept]
    return found


def drawn(seed: int, batch: int, n: int, *, center: bool = False) -> tuple[Array, Array, Array]:
    """Boxes, scores of 3 classes by box, and a label a box."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 10, (batch, n, 2))
    size = rng.uniform(1, 5, (batch, n, 2))
    boxes = np.concatenate([corner, size if center else corner + size], -1).astype(np.float32)
    scores = rng.permutation(batch * n * 3).reshape(batch, n, 3) / (batch * n * 3)
    return boxes, scores.astype(np.float32), rng.integers(0, 3, (batch, n))


def test_the_graph_that_is_left() -> None:
    model = merged(LABELLED)

    lines = ir.to_onnx_text(model, exclude_initializers=True).splitlines()

    # Both members answer with the same labels and scores, which are computed once.
    assert [line.split("] ")[1] for line in lines[-4:-1]] == [
        'boxes = Concat <axis: int = 0> ("a/boxes", "b/boxes")',
        'labels = Concat <axis: int = 0> ("a/labels", "a/labels")',
        'scores = Concat <axis: int = 0> ("a/scores", "a/scores")',
    ]


@pytest.mark.parametrize("outputs", [BY_CLASS, CLASSES_FIRST, LABELLED, LABELLED_BATCH])
def test_detections_stand_one_after_another(outputs: str) -> None:
    boxes, scores, labels = drawn(0, 2, 4)
    feeds: dict[str, Array] = {"in_boxes": boxes, "in_scores": scores}
    if outputs == CLASSES_FIRST:
        feeds["in_scores"] = scores.transpose(0, 2, 1)
    if outputs in {LABELLED, LABELLED_BATCH}:
        feeds = {"in_boxes": boxes, "in_scores": scores[..., 0], "in_labels": labels}
    if outputs == LABELLED:
        feeds = {name: array[0] for name, array in feeds.items()}
    if outputs == LABELLED_BATCH:
        feeds["in_labels"] = labels.astype(np.int32)

    found = answers(merged(outputs), feeds)

    axis = 0 if outputs == LABELLED else 1
    own = feeds["in_boxes"]
    np.testing.assert_array_equal(found["boxes"], np.concatenate([own, own + 0.25], axis))
    axis = 2 if outputs == CLASSES_FIRST else axis
    np.testing.assert_array_equal(found["scores"], np.concatenate([feeds["in_scores"]] * 2, axis))


HOW = st.builds(
    Suppression,
    iou=st.sampled_from((0.0, 0.3, 0.5, 1.0)),
    score=st.sampled_from((None, 0.0, 0.4, 2.0)),
    center=st.booleans(),
)


@settings(max_examples=20)
@given(
    outputs=st.sampled_from((BY_CLASS, CLASSES_FIRST, LABELLED, LABELLED_BATCH)),
    how=HOW,
    seed=st.integers(0, 99),
    n=st.integers(0, 7),
    opset=st.sampled_from((11, 13, 18, 21)),
)
def test_suppression_is_that_of_numpy(
    outputs: str, how: Suppression, seed: int, n: int, opset: int
) -> None:
    batch = 1 if outputs == LABELLED else 2
    boxes, scores, labels = drawn(seed, batch, n, center=how.center)
    together = np.concatenate([boxes, boxes + np.float32(0.25)], 1)
    by_class = np.concatenate([scores, scores], 1).transpose(0, 2, 1)
    feeds: dict[str, Array] = {"in_boxes": boxes, "in_scores": scores}
    if outputs == CLASSES_FIRST:
        feeds["in_scores"] = scores.transpose(0, 2, 1)
    if outputs in {LABELLED, LABELLED_BATCH}:
        kind = np.int64 if outputs == LABELLED else np.int32
        feeds = {"in_boxes": boxes, "in_scores": scores[..., 0], "in_labels": labels.astype(kind)}
        own = np.concatenate([scores[..., 0]] * 2, 1)[:, None]
        asked = np.concatenate([labels] * 2, 1)[:, None] == np.arange(3)[:, None]
        by_class = np.where(asked, own, -np.inf)
    if outputs == LABELLED:
        feeds = {name: array[0] for name, array in feeds.items()}

    found = answers(merged(outputs, opset, how), feeds)

    expected = suppressed(together, by_class, how)
    kept = np.array(expected, np.int64).reshape(-1, 3)
    names = {"classes", "samples", "labels"} & found.keys()
    np.testing.assert_array_equal(found["boxes"], together[kept[:, 0], kept[:, 2]])
    np.testing.assert_array_equal(found["scores"], by_class[tuple(kept.T)])
    for name in names:
        np.testing.assert_array_equal(found[name], kept[:, 0 if name == "samples" else 1])
    if outputs == LABELLED:
        assert names == {"labels"}
        assert found["labels"].dtype == np.int64
    else:
        assert names == {"samples", "labels" if outputs == LABELLED_BATCH else "classes"}


def test_members_may_find_different_numbers() -> None:
    models = [detector(BY_CLASS, n, prefix=p) for n, p in ((5, ""), (3, "other_"))]
    with pytest.raises(UsageError, match="does not fit"):
        merge(models, names="ab", combine="detections")
    shared = [ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17]> m (float[b,60] x) => (float[b,{n},4] boxes, '
        f"float[b,{n},2] scores) {{ s = Constant <value_ints: ints = [0, {n}, 6]> () "
        "c = Constant <value_ints: ints = [0, 1, 2, 3]> () "
        "d = Constant <value_ints: ints = [4, 5]> () "
        f"f = Constant <value_ints: ints = [0]> () e = Constant <value_ints: ints = [{6 * n}]> () "
        "a = Constant <value_ints: ints = [1]> () z = Slice (x, f, e, a) r = Reshape (z, s) "
        "boxes = Gather <axis: int = 2> (r, c) scores = Gather <axis: int = 2> (r, d) }"
    ) for n in (5, 3)]  # fmt: skip

    model = merge(shared, names="ab", combine="detections").model

    assert [str(value.shape) for value in model.graph.outputs] == ["[b,8,4]", "[b,8,2]"]
    x = np.random.default_rng(0).standard_normal((2, 60)).astype(np.float32)
    found = answers(model, {"x": x})
    assert found["boxes"].shape == (2, 8, 4)
    np.testing.assert_array_equal(found["scores"][:, 5:], x[:, :18].reshape(2, 3, 6)[..., 4:])


REFUSALS = [
    ("(float[b,10] scores)", "none of them is boxes"),
    ("(float[b,n,4] boxes, float[b,n,4] more, float[b,n,3] scores)", "neither boxes nor scores"),
    ("(float[b,n,4] one, float[b,n,4] two)", "more than one of them may be boxes"),
    ("(float[b,n,4] boxes)", "none of them is scores"),
    ("(float[b,84,n] yolo)", "none of them is boxes"),
    ("(float[n,4] boxes, float[n,3] scores)", "none of them is scores|axis of samples"),
    ("(float[b,n,4] boxes, float[b,m,k] scores)", "which of its axes counts the boxes"),
    ("(float[b,n,4] boxes, float[b,n] scores, int64[b,n] labels, float[b,n,9,9] masks)",
     "'masks'.*neither boxes nor scores nor labels"),
]  # fmt: skip


@pytest.mark.parametrize(("outputs", "reason"), REFUSALS)
def test_what_is_no_detection_is_refused(outputs: str, reason: str) -> None:
    models = [detector(outputs) for _ in range(2)]

    with pytest.raises(UsageError, match=reason) as caught:
        merge(models, names="ab", combine="detections")

    assert "'a'" in str(caught.value)
    assert "boxes [.., n, 4]" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (BY_CLASS.replace("3]", "5]"), "other classes"),
        (BY_CLASS.replace("float[b,{n},4]", "double[b,{n},4]"), "the first member's is"),
        (CLASSES_FIRST, "swapped"),
    ],
)
def test_members_that_differ_are_refused(second: str, reason: str) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> m (float[b,n,4] x) => {} {{ {} }}'
    models = []
    for outputs in (BY_CLASS, second):
        declared = outputs.format(n="n")
        kind = 11 if "double" in declared else 1
        width = 5 if "5]" in declared else 3
        classes = f"c = Constant <value_ints: ints = {[0] * width}> () "
        scores = "s = Gather <axis: int = 2> (x, c) scores = Identity (s)"
        if "3,n" in declared:
            scores = (
                "s = Gather <axis: int = 2> (x, c) scores = Transpose <perm: ints = [0, 2, 1]> (s)"
            )
        body = f"boxes = Cast <to: int = {kind}> (x) {classes}{scores}"
        models.append(ir.from_onnx_text(text.format(declared, body)))

    with pytest.raises(UsageError, match=reason):
        merge(models, names="ab", combine="detections")


def test_options_are_checked() -> None:
    for iou, score in ((1.5, None), (0.5, float("nan"))):
        with pytest.raises(UsageError):
            Suppression(iou, score)
    models = [detector(BY_CLASS) for _ in range(2)]
    with pytest.raises(UsageError, match="only detections"):
        merge(models, names="ab", suppression=Suppression(0.5))
    with pytest.raises(UsageError, match="no uncertainty"):
        merge(models, names="ab", combine="detections", uncertainty=True)
