"""Does a merged model answer what its members answer one by one, combined in NumPy?

Every way to combine, on every group of models, side by side and stacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx_ir as ir

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


def groups(cache: Path | None = None) -> Iterator[Case]:
    """What is merged, as far as it is there."""
    corpus = load_corpus(cache)

    def read(*names: str) -> tuple[ir.Model, ...] | None:
        there = all(corpus[name].is_fetched for name in names)
        return tuple(onnxpress.load(corpus[name].path) for name in names) if there else None

    yield Case("four CNNs", _shipped(*(f"cnn_{index}" for index in range(4))))
    yield Case("ResNet, MobileNet, CNN", _shipped("resnet", "mobilenet", "cnn_0"))
    yield Case("16 perceptrons", tuple(perceptron(seed) for seed in range(16)))
    for name, found in (
        ("oskut trio", read(*TRIO)),
        ("attacut-c, attacut-sc", read("attacut-c", "attacut-sc")),
        ("PP-OCR detector, others' weights", changed(read("ppocr-det"))),
        ("silero VAD with LSTM, others' weights", changed(read("silero-vad-16k-sequence"))),
    ):
        if found:
            yield Case(name, found)


def _shipped(*names: str) -> tuple[ir.Model, ...]:
    return tuple(onnxpress.load(SHIPPED / f"mnist_{name}.onnx") for name in names)


def changed(models: tuple[ir.Model, ...] | None) -> tuple[ir.Model, ...] | None:
    """A model, and the same with every weight a little off."""
    if models is None:
        return None
    (model,) = models
    other, rng = model.clone(), np.random.default_rng(0)
    for name, value in other.graph.initializers.items():
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
        expected = _expected(combine, apart, fitted, uncertainty=uncertainty)
    except OnnxpressError as error:
        return row | {"refused": error.message}
    target = Target("cpu")
    pipeline = preset(2, target) + FORMS[form]
    found = session_of(PassManager(pipeline).run(merged, Context(target=target)).model).run(feeds)
    gaps = [
        _gap(one, other, sure)
        for one, (other, sure) in zip(found.values(), expected, strict=True)
        if sure is None or sure.any()
    ]
    row |= {"outputs": len(expected), "compared": len(gaps)}
    if open_votes := [1 - float(np.mean(sure)) for _, sure in expected if sure is not None]:
        row["undecided"] = max(open_votes)
    blind = expected[0][1] is not None and not expected[0][1].any()
    return row | {
        "max_abs": max((gap for gap, _ in gaps), default=0.0),
        "equal": None if blind else all(fine for _, fine in gaps),
    }


def _gap(found: Array, expected: Array, sure: Array | None) -> tuple[float, bool]:
    if sure is not None:
        found, expected = found[sure], expected[sure]
    if found.dtype.kind not in "fc":
        return 0.0, bool(np.array_equal(found, expected))
    bound = ABSOLUTE * max(1.0, float(np.abs(expected).max(initial=0)))
    fine = np.allclose(found, expected, rtol=RELATIVE, atol=bound, equal_nan=True)
    return float(np.nanmax(np.abs(found - expected), initial=0)), bool(fine)


def _apart(case: Case) -> tuple[list[list[Array]], dict[str, Array]]:
    """What each member answers by itself, and the inputs of the merged model."""
    together = Merge("none")(case.models, names=case.names)
    feeds = dict(batch_feeds(together.model, _BATCH, None, {}, 0))
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
    *,
    uncertainty: bool,
) -> list[tuple[Array, Array | None]]:
    """Each output, and for what votes decide where rounding cannot turn a vote."""
    if combine == "none":
        return [(array, None) for answers in apart for array in answers]
    expected: list[tuple[Array, Array | None]] = []
    for arrays in zip(*apart, strict=True):
        exact = [one.astype(np.float64) for one in arrays]
        sure = _sure(exact)
        expected.append((in_numpy(combine, exact, fitted), sure if combine == "vote" else None))
        if uncertainty:
            expected.append((np.var(exact, axis=0), None))
            if arrays[0].ndim > 1:
                expected.append((1 - _shares(exact).max(-1), sure))
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


def _sure(arrays: Sequence[Array]) -> Array | None:
    """Where rounding cannot turn the vote of any member."""
    if arrays[0].ndim < 2 or arrays[0].shape[-1] < 2:
        return None
    bound = ABSOLUTE * max(1.0, *(float(np.abs(one).max(initial=0)) for one in arrays))
    tops = [np.sort(one, axis=-1)[..., -2:] for one in arrays]
    return np.asarray(np.all([top[..., 1] - top[..., 0] > bound for top in tops], axis=0))


def _shares(arrays: Sequence[Array]) -> Array:
    classes = np.arange(arrays[0].shape[-1])
    return np.asarray(np.mean([one.argmax(-1)[..., None] == classes for one in arrays], axis=0))


def cases(cache: Path | None = None) -> Iterator[tuple[Case, Combine, str]]:
    """Every group, way to combine and layout."""
    for case in groups(cache):
        for combine in get_args(Combine):
            for form in ("", "stack-members"):
                yield case, combine, form
