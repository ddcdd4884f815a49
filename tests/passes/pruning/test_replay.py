"""Replay: the values of the whole model, computed by as little of it as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Session, SessionConfig
from onnxpress.backends.errors import DataError
from onnxpress.backends.ort import session_of
from onnxpress.passes.base import Array, Context
from onnxpress.passes.pruning.replay import Replay
from tests.passes.pruning.helpers import Samples, build, normal

TEXT = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[N,4] x, float[N,4] z) => (float[N,4] y) {
  a = Add (x, w)
  b = Mul (a, a)
  c = If (yes) <
    then_branch = one () => (float[N,4] p) {p = Add (a, z)},
    else_branch = two () => (float[N,4] q) {q = Neg (b)}
  >
  y = Sub (c, b)
}
"""


class Sessions:
    """Loads models and remembers which nodes they had."""

    def __init__(self) -> None:
        self.loaded: list[list[str]] = []

    def __call__(
        self,
        model: ir.Model,
        config: SessionConfig = SessionConfig(),  # noqa: B008
        outputs: Sequence[str] | None = None,
    ) -> Session:
        self.loaded.append([node.op_type for node in model.graph])
        return session_of(model, config, outputs)


def model() -> ir.Model:
    return build(TEXT, {"w": normal(4), "yes": np.array(True)})


def data(count: int = 80) -> Samples:
    return Samples({"x": normal(count, 4, seed=1), "z": normal(count, 4, seed=2)})


def collect(one: Replay, model: ir.Model, name: str) -> Array:
    value = next(v for node in model.graph for v in node.outputs if v.name == name)
    return np.concatenate(list(one.batches(value)))


@pytest.mark.parametrize("room", [1 << 20, 0])
def test_values_are_those_of_the_whole_model(room: int) -> None:
    one, arrays = model(), data().arrays
    runner = Replay(one, data(), 0, Context(), room=room)

    for name in ("a", "b", "c", "y", "b"):
        expected = session_of(one, SessionConfig(), [name]).run(arrays)[name]
        np.testing.assert_allclose(collect(runner, one, name), expected, rtol=1e-6)


def test_only_what_lies_between_is_run() -> None:
    one, sessions = model(), Sessions()
    runner = Replay(one, data(), 0, Context(sessions=sessions))

    for name in ("a", "b", "c", "y", "y"):
        collect(runner, one, name)

    assert sessions.loaded == [["Add"], ["Mul"], ["If"], ["Sub"]]


def test_a_node_runs_again_for_its_other_outputs() -> None:
    text = (
        '<ir_version: 9, opset_import: ["" : 18]> main (float[N,4] x) => (float[N,2] y) '
        "{ s, t = Split <axis = 1, num_outputs = 2> (x)  y = Sub (s, t) }"
    )
    split, samples = build(text, {}), Samples({"x": normal(40, 4, seed=1)})
    replay = Replay(split, samples, 0, Context())
    first = collect(replay, split, "s")
    x = samples.arrays["x"]
    np.testing.assert_array_equal(first, x[:, :2])
    np.testing.assert_array_equal(collect(replay, split, "y"), x[:, :2] - x[:, 2:])


def test_the_oldest_values_make_room() -> None:
    one, sessions = model(), Sessions()
    runner = Replay(one, data(), 0, Context(sessions=sessions), room=2 * 80 * 4 * 4)

    for name in ("a", "b", "c", "a"):
        collect(runner, one, name)

    assert sessions.loaded == [["Add"], ["Mul"], ["If"], ["Add"]]


@pytest.mark.parametrize(("asked", "read"), [(0, 80), (1, 1), (40, 64), (64, 64), (500, 80)])
def test_samples_are_read_in_batches_up_to_a_limit(asked: int, read: int) -> None:
    one = model()

    assert len(collect(Replay(one, data(), asked, Context()), one, "a")) == read


def test_data_without_an_input_is_an_error() -> None:
    one = model()
    runner = Replay(one, Samples({"x": normal(4, 4)}), 0, Context())

    assert len(collect(runner, one, "a")) == 4
    with pytest.raises(DataError, match="nothing for the model's input 'z'"):
        collect(runner, one, "c")
