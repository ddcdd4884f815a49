"""ONNX's own tests of operators: answers stay what they were, and what ONNX expects.

What ONNX Runtime does not run, ONNX's reference implementation does.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.case.test_case import TestCase as OnnxCase
from onnx.reference import ReferenceEvaluator

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.errors import BackendError
from onnxpress.backends.ort import session_of
from onnxpress.backends.serde import from_proto, to_proto
from onnxpress.backends.targets import Target
from onnxpress.compiler.pipeline import preset
from onnxpress.compiler.verify.ancestry import randomness
from tests.compiler.kept import exact_passes, rewritten

CONSTANT = ("nothing", "all but the first", "everything")
"""Which inputs are made constants, so that there is something to fold."""

MODULES = (
    "affinegrid bernoulli batch_normalization cast concat constantofshape conv convtranspose"
    " dropout expand flatten gather gemm identity if_ loop matmul not_ pad rangeop reducesum"
    " reshape scan shape slice split squeeze stringnormalizer tile topk transpose unsqueeze"
)
"""Of the tests by operator, those of which some are run always."""

PARTS = 8

_EXACTLY = SessionConfig(level="disabled", threads=1, prepacking=False)
_ROUNDINGS = 16


PIPELINES = {
    "1": str(preset(1, Target("cpu"))),
    "2": str(preset(2, Target("cpu"))),
    "exact passes": ",".join(exact_passes()),
}


@dataclass(frozen=True)
class Example:
    """A model of ONNX's tests with its inputs and the outputs that ONNX expects."""

    model: onnx.ModelProto
    feeds: Mapping[str, Any]
    expected: tuple[Array, ...]
    rtol: float
    atol: float

    def with_constants(self, which: str) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """A copy with constants for some inputs, and the feeds that are left."""
        model = onnx.ModelProto.FromString(self.model.SerializeToString())
        feeds = {name: _array(value) for name, value in self.feeds.items()}
        model.ir_version = max(model.ir_version, 4)
        for place, info in enumerate(_fed(model.graph)):
            frozen = which == "everything" or (which == "all but the first" and place > 0)
            if not frozen or info.name not in feeds or not info.type.HasField("tensor_type"):
                continue
            kind = ir.DataType(info.type.tensor_type.elem_type)
            tensor = ir.to_proto(_tensor(feeds.pop(info.name), kind))
            tensor.name = info.name
            model.graph.initializer.append(tensor)
            model.graph.input.remove(info)
        return model, feeds


def _tensor(array: Array, kind: ir.DataType) -> ir.TensorProtocol:
    if kind == ir.DataType.STRING:
        texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.flat]
        return ir.StringTensor(texts, shape=ir.Shape(array.shape))
    return ir.Tensor(array, kind)


def _array(value: Any) -> Array:
    """A feed as sessions take it: an object array for a sequence or an optional."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if value is None or isinstance(value, list):
        items = np.empty(() if value is None else len(value), dtype=object)
        for place, item in enumerate(value or ()):
            items[place] = item
        return items
    return np.asarray(value)


def _fed(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    known = {tensor.name for tensor in graph.initializer}
    return [info for info in graph.input if info.name not in known]


def _example(case: OnnxCase) -> Example:
    if case.model is not None and case.data_sets is not None:
        model, (values, outputs) = case.model, case.data_sets[0]
    else:
        folder = Path(case.model_dir or "")
        model = onnx.load(folder / "model.onnx")
        data = folder / "test_data_set_0"
        fed, answered = _fed(model.graph), model.graph.output
        values = [_stored(data / f"input_{at}.pb", info) for at, info in enumerate(fed)]
        outputs = [_stored(data / f"output_{at}.pb", info) for at, info in enumerate(answered)]
    names = [info.name for info in _fed(model.graph)]
    expected = tuple(map(_array, outputs))
    return Example(model, dict(zip(names, values, strict=False)), expected, case.rtol, case.atol)


def _stored(path: Path, info: onnx.ValueInfoProto) -> Any:
    if info.type.HasField("sequence_type"):
        return onnx.numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    return onnx.TensorProto.FromString(path.read_bytes())


def _quietly(load: Callable[[], Iterable[OnnxCase]]) -> list[OnnxCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reference answers divide by zero, and overflow
        return sorted(load(), key=lambda case: case.name)


@functools.cache
def _some() -> list[OnnxCase]:
    """The tests of :data:`MODULES`: all tests take several seconds to make."""

    def load() -> Iterable[OnnxCase]:
        from onnx.backend.test.case import node

        for module in MODULES.split():
            importlib.import_module(f"{node.__name__}.{module}")
        return list(node._NodeTestCases)

    return _quietly(load)


@functools.cache
def _all() -> list[OnnxCase]:
    def load() -> Iterable[OnnxCase]:
        from onnx.backend.test.loader import load_model_tests

        kinds = ("node", "simple", "pytorch-converted", "pytorch-operator")
        return [case for kind in kinds for case in load_model_tests(kind=kind)]

    return _quietly(load)


def _answers(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    return list(session_of(model, _EXACTLY).run(feeds).values())


def _difference(right: Array, answer: Array) -> str:
    if right.dtype != answer.dtype or right.shape != answer.shape:
        return f"{answer.dtype}{answer.shape} instead of {right.dtype}{right.shape}"
    if right.dtype == object:
        pairs = zip(right.flat, answer.flat, strict=True)
        found = (
            _difference(np.asarray(one), np.asarray(other))
            if isinstance(one, np.ndarray)
            else ""
            if one == other
            else f"{other!r} instead of {one!r}"
            for one, other in pairs
        )
        return next(filter(None, found), "")
    if right.dtype.itemsize == 1 or right.dtype.kind in "iub":
        return "" if right.tobytes() == answer.tobytes() else "other numbers"
    wide = np.complex128 if right.dtype.kind == "c" else np.float64
    one, other = right.astype(wide), answer.astype(wide)
    eps = float(ml_dtypes.finfo(right.real.dtype).eps)  # type: ignore[no-untyped-call]
    largest = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
    with np.errstate(invalid="ignore"):
        near = np.abs(one - other) <= _ROUNDINGS * eps * largest
    same = near | (one == other) | (np.isnan(one) & np.isnan(other))
    return "" if same.all() else f"{answer[~same][:3]} instead of {right[~same][:3]}"


def _as_expected(example: Example, answers: Iterable[Array]) -> bool:
    """Whether ``answers`` are what ONNX expects, within the tolerance of the test.

    Behind them there may be what ``guard-outputs`` adds: one truth value.
    """
    answers = list(answers)
    own, added = answers[: len(example.expected)], answers[len(example.expected) :]
    if [(one.dtype, one.shape) for one in added] not in ([], [(np.dtype(bool), ())]):
        return False
    for right, answer in zip(example.expected, own, strict=True):
        if right.dtype != answer.dtype or right.shape != answer.shape:
            return False
        if right.dtype.kind not in "fc":
            if _difference(right, answer):
                return False
        elif not np.allclose(right, answer, example.rtol, example.atol, equal_nan=True):
            return False
    return True


def _by_onnx(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array] | None:
    """The answers of ONNX's reference implementation; ``None`` where it has none."""
    given = {name: one.tolist() if one.dtype == object else one for name, one in feeds.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = ReferenceEvaluator(to_proto(model)).run(None, given)
    except Exception:  # noqa: BLE001 - it is not complete, and fails in many ways
        return None
    return [_array(one) for one in found]


def _problem(case: OnnxCase, pipeline: str, which: str) -> str | None:
    """What is wrong with the model of ``case`` after ``pipeline``; ``None`` if nothing runs it."""
    example = _example(case)
    proto, feeds = example.with_constants(which)
    model = from_proto(proto)
    finished = rewritten(model, pipeline).model
    onnx.checker.check_model(to_proto(finished))
    if any(randomness(model, output) for output in model.graph.outputs):
        return None  # no two answers need be the same
    try:
        right = _answers(model, feeds)
    except BackendError:
        before, after = _by_onnx(model, feeds), _by_onnx(finished, feeds)
        if before is None or not _as_expected(example, before):
            return None
        fine = after is not None and _as_expected(example, after)
        return "" if fine else "it no longer answers as ONNX expects"
    answers = _answers(finished, feeds)
    if _as_expected(example, right) and not _as_expected(example, answers):
        return "it no longer answers as ONNX expects"
    return next(filter(None, map(_difference, right, answers)), "")


def _check(cases: list[OnnxCase], pipeline: str, which: str) -> None:
    found = {case.name: _problem(case, PIPELINES[pipeline], which) for case in cases}
    assert {name: problem for name, problem in found.items() if problem} == {}
    run = [name for name, problem in found.items() if problem is not None]
    assert len(run) > 0.9 * len(cases)


@pytest.mark.parametrize("which", CONSTANT)
@pytest.mark.parametrize("pipeline", list(PIPELINES))
def test_some_operators_answer_as_before(pipeline: str, which: str) -> None:
    cases = _some()
    _check(cases[CONSTANT.index(which) :: 4], pipeline, which)


def test_random_answers_are_not_compared_even_if_they_happen_to_be_equal() -> None:
    cases = [case for case in _some() if "bernoulli" in case.name]
    assert len(cases) >= 3
    assert {_problem(case, PIPELINES["1"], "nothing") for case in cases} == {None}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("which", CONSTANT)
@pytest.mark.parametrize("pipeline", list(PIPELINES))
def test_every_operator_answers_as_before(pipeline: str, which: str, part: int) -> None:
    assert len(_all()) > 1500
    _check(_all()[part::PARTS], pipeline, which)
