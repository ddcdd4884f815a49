"""Does a merged model answer what its members answer one by one, combined in NumPy?

Every way to combine, on every group of models, side by side and stacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

import onnxpress
from onnxpress.backends.base import Array
from onnxpress.backends.errors import OnnxpressError
from onnxpress.backends.ort import session_of
from onnxpress.backends.targets import Target
from onnxpress.compiler.layouts import FORMS, batch_feeds
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import preset
from onnxpress.passes.base import Context
from onnxpress.passes.ensembles.combine import FLOATS, Combine
from onnxpress.passes.ensembles.combiners import Linear
from onnxpress.passes.ensembles.logistic import Logistic, is_raw
from onnxpress.passes.ensembles.merge import Merge

from .corpus import SHIPPED, load_corpus
from .ensembles import TRIO, Case, perceptron

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Of each number, and of the largest: what sums in another order may differ by in float32."""
_BATCH = 5
_MOST_OPEN = 0.05
"""The share of entries that votes within rounding may leave open; with more, a case fails."""


def groups(cache: Path | None = None) -> Iterator[Case]:
    """What is merged, as far as it is there."""
    corpus = load_corpus(cache)

    def read(*names: str) -> tuple[ir.Model, ...] | None:
        there = all(corpus[name].is_fetched for name in names)
        return tuple(onnxpress.load(corpus[name].path) for name in names) if there else None

    yield Case("four CNNs", _shipped(*(f"cnn_{index}" for index in range(4))))
    yield Case("ResNet, MobileNet, CNN", _shipped("resnet", "mobilenet", "cnn_0"))
    yield Case("16 perceptrons", tuple(perceptron(seed) for seed in range(16)))
    for name, found, feeds in (
        ("oskut trio", read(*TRIO), None),
        ("attacut-c, attacut-sc", read("attacut-c", "attacut-sc"), None),
        ("PP-OCR detector, others' weights", changed(read("ppocr-det")), {"x": strokes()}),
        ("silero VAD with LSTM, others' weights", changed(read("silero-vad-16k-sequence")), None),
    ):
        if found:
            yield Case(name, found, feeds=feeds)


def _shipped(*names: str) -> tuple[ir.Model, ...]:
    return tuple(onnxpress.load(SHIPPED / f"mnist_{name}.onnx") for name in names)


def strokes(height: int = 64, width: int = 96) -> Array:
    """Pictures of dark strokes as high as the picture, on white.

    In noise a text detector finds nothing: its sigmoids are nearly all zero, to the last bit, and
    which one is largest says nothing. Here most rows have a largest entry that rounding leaves.
    """
    rng = np.random.default_rng(0)
    pictures = np.ones((_BATCH, 1, height, width))
    for picture in pictures[:, 0]:
        left = 2
        while left < width - 8:
            size = int(rng.integers(4, 9))
            picture[2:-10, left : left + 2] = -0.9
            if rng.random() < 0.6:
                picture[height // 2 - 4 :][:2, left : left + size] = -0.9
            if rng.random() < 0.5:
                picture[2:-10, left + size - 2 : left + size] = -0.9
            left += size + 3
    pictures += rng.normal(0, 0.02, pictures.shape)
    return np.repeat(pictures, 3, axis=1).astype(np.float32)


def changed(models: tuple[ir.Model, ...] | None) -> tuple[ir.Model, ...] | None:
    """A model, and the same with every weight a little off, initializer or ``Constant``."""
    if models is None:
        return None
    (model,) = models
    other, rng = model.clone(), np.random.default_rng(0)
    LiftConstantsToInitializersPass()(other)
    for name, value in [item for graph in other.graphs() for item in graph.initializers.items()]:
        tensor = value.const_value
        if tensor is not None and tensor.dtype in FLOATS and tensor.size > 64:
            factor = rng.normal(1, 0.02, tuple(tensor.shape.numpy()))
            moved = (tensor.numpy() * factor).astype(tensor.numpy().dtype)
            value.const_value = ir.tensor(moved, name=name)
    return model, other


def check(case: Case, combine: Combine, form: str) -> dict[str, Any]:
    """Merge, run and compare; the row says ``refused`` and why where the members do not fit."""
    row: dict[str, Any] = {"case": case.name, "combine": combine, "passes": form}
    try:
        apart, feeds = _apart(case)
        fitted = _fitted(combine, apart)
        uncertainty = combine in {"mean", "vote"}
        how = Merge(combine, uncertainty=uncertainty, **fitted)
        merged = how(case.models, names=case.names).model
        votes = combine == "vote" or uncertainty
        near = (
            _run(Merge("none")(case.models, names=case.names).model, form, feeds) if votes else []
        )
        expected = _expected(combine, apart, fitted, near, uncertainty=uncertainty)
    except OnnxpressError as error:
        return row | {"refused": error.message}
    gaps = [
        _gap(one, *bounds) for one, bounds in zip(_run(merged, form, feeds), expected, strict=True)
    ]
    row |= {"outputs": len(expected), "max_abs": max(gap for gap, _ in gaps)}
    if votes:
        row["undecided"] = max(float(np.mean(low != high)) for low, high in expected)
    few = row.get("undecided", 0.0) <= _MOST_OPEN
    return row | {"equal": few and all(fine for _, fine in gaps)}


def _run(merged: ir.Model, form: str, feeds: dict[str, Array]) -> list[Array]:
    """What ``merged`` answers in the layout ``form``."""
    target = Target("cpu")
    pipeline = preset(2, target) + FORMS[form]
    laid = PassManager(pipeline).run(merged, Context(target=target)).model
    return list(session_of(laid).run(feeds).values())


def _gap(found: Array, low: Array, high: Array) -> tuple[float, bool]:
    """How far ``found`` lies outside of ``low`` to ``high``, and whether no more than rounding."""
    if found.dtype.kind not in "fc":
        return 0.0, bool(np.array_equal(found, low))
    nearest = np.clip(found, low, high)
    bound = ABSOLUTE * max(1.0, float(np.abs(high).max(initial=0)))
    fine = np.allclose(found, nearest, rtol=RELATIVE, atol=bound, equal_nan=True)
    return float(np.nanmax(np.abs(found - nearest), initial=0)), bool(fine)


def _apart(case: Case) -> tuple[list[list[Array]], dict[str, Array]]:
    """What each member answers by itself, and the inputs of the merged model."""
    together = Merge("none")(case.models, names=case.names)
    feeds = dict(case.feeds or batch_feeds(together.model, _BATCH, None, {}, 0))
    found = []
    for model, member in zip(case.models, together.details["members"], strict=True):
        own = {}
        for name, shared in member["inputs"].items():
            laid = isinstance(shared, dict)
            array = feeds[shared["shared"] if laid else shared]
            own[name] = array.transpose(shared["transposed"]) if laid else array
        found.append(list(session_of(model).run(own).values()))
    return found, feeds


def _fitted(combine: Combine, apart: Sequence[Sequence[Array]]) -> dict[str, Any]:
    """Weights and maps as a fit might give them."""
    rng, count = np.random.default_rng(1), len(apart)
    if combine == "weighted":
        return {"weights": tuple(range(1, count + 1))}
    if combine not in {"stack", "logistic"}:
        return {}
    first = [answers[0] for answers in apart]
    width = first[0].shape[-1]
    weight, bias = rng.normal(0, 0.3, (count * width, width)), rng.normal(0, 0.3, width)
    if combine == "stack":
        return {"linear": Linear(weight, bias)}
    return {"linear": Logistic(weight, bias, tuple(map(is_raw, first)))}


def _expected(
    combine: Combine,
    apart: Sequence[Sequence[Array]],
    fitted: dict[str, Any],
    near: Sequence[Array],
    *,
    uncertainty: bool,
) -> list[tuple[Array, Array]]:
    """Each output as bounds, which differ only for votes that rounding can turn.

    ``near`` is what the members answer within the merged model, all of each in turn.
    """
    if combine == "none":
        return [(array, array) for answers in apart for array in answers]
    expected: list[tuple[Array, Array]] = []
    width = len(apart[0])
    for at, arrays in enumerate(zip(*apart, strict=True)):
        exact = [one.astype(np.float64) for one in arrays]
        votes = near and exact[0].ndim > 1
        low, high = vote_bounds(exact, near[at::width]) if votes else (None, None)
        if combine == "vote" and low is not None and high is not None:
            expected.append((low, high))
        else:
            answer = in_numpy(combine, exact, fitted)
            expected.append((answer, answer))
        if uncertainty:
            variance = np.var(exact, axis=0)
            expected.append((variance, variance))
            if low is not None and high is not None:
                expected.append((1 - high.max(-1), 1 - low.max(-1)))
    return expected


def in_numpy(combine: Combine, arrays: list[Array], fitted: dict[str, Any]) -> Array:
    """The combination of ``arrays``, written down once more and independently."""
    match combine:
        case "mean":
            return np.asarray(np.mean(arrays, axis=0))
        case "weighted":
            return np.asarray(np.average(arrays, axis=0, weights=fitted["weights"]))
        case "vote":
            return _shares(arrays)
        case "softmax-mean":
            return np.asarray(np.mean([_softmax(one) for one in arrays], axis=0))
        case "geometric":
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.asarray(np.exp(np.mean(np.log(arrays), axis=0)))
        case "max":
            return np.asarray(np.max(arrays, axis=0))
        case "median":
            return np.asarray(np.median(arrays, axis=0))
        case "stack":
            linear = fitted["linear"]
            return np.asarray(np.concatenate(arrays, -1) @ linear.weight + linear.bias)
        case _:
            answer: Array = fitted["linear"](arrays)
            return answer


def _softmax(scores: Array) -> Array:
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def vote_bounds(apart: Sequence[Array], merged: Sequence[Array]) -> tuple[Array, Array]:
    """The least and the largest share of votes of each class, given what rounding moves.

    A member votes for its first largest entry, or for any that lies below it by at most twice what
    lies between the member by itself and the same member within the merged model, if this is no
    more than rounding. Where both hold the same numbers the vote is decided, ties included.
    """
    surely, maybe = [], []
    for one, other in zip(apart, merged, strict=True):
        moved = np.abs(other - one).max(-1, keepdims=True)
        bound = ABSOLUTE * max(1.0, float(np.abs(one).max(initial=0)))
        slack = np.where(moved <= bound, 2 * moved, 0)
        voted = _shares([one]) > 0
        near = voted | ((slack > 0) & (one >= one.max(-1, keepdims=True) - slack))
        surely.append(near & (near.sum(-1, keepdims=True) == 1))
        maybe.append(near)
    return np.mean(surely, axis=0), np.mean(maybe, axis=0)


def _shares(arrays: Sequence[Array]) -> Array:
    classes = np.arange(arrays[0].shape[-1])
    return np.asarray(np.mean([one.argmax(-1)[..., None] == classes for one in arrays], axis=0))


def cases(cache: Path | None = None) -> Iterator[tuple[Case, Combine, str]]:
    """Every group, way to combine numbers and layout."""
    for case in groups(cache):
        for combine in get_args(Combine):
            if combine == "detections":
                continue
            for form in ("", "stack-members"):
                yield case, combine, form
