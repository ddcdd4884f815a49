"""The verifier: right models pass, wrong ones fail, and what cannot be told is said to be so."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, Feeds, Session, SessionConfig
from onnxpress.backends.errors import BackendError, DataError, UsageError
from onnxpress.backends.ort import session_of
from onnxpress.compiler.verify import Verifier, verifier
from onnxpress.passes.base import Contract

MODELS = Path(__file__).parents[3] / "benchmarks" / "models"
LOOSE = Contract(exact=False, changes="rounding", min_sqnr_db=20)


def model(signature: str, body: str, arrays: dict[str, Any] | None = None) -> ir.Model:
    """A model in text; ``arrays`` are its constants, each used by name."""
    return ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 17, "ai.onnx.ml" : 3, "nowhere" : 1]> '
        f"main ({signature.replace('->', ') => (')}) {{ {body} }}",
        initializers=[ir.tensor(np.asarray(a), name=n) for n, a in (arrays or {}).items()],
    )


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


W = weights(6, 4)
LINEAR = model("float[batch,6] x -> float[batch,4] y", "y = MatMul(x, w)", {"w": W})


def linear(change: Callable[[Array], Array]) -> ir.Model:
    return model("float[batch,6] x -> float[batch,4] y", "y = MatMul(x, w)", {"w": change(W)})


class Samples:
    """Some feeds, as data."""

    def __init__(self, *feeds: Feeds) -> None:
        self.feeds = feeds

    def batches(self, size: int) -> Iterator[Feeds]:
        yield from self.feeds


def test_a_model_gives_its_own_answers() -> None:
    found = Verifier(LINEAR).check(LINEAR)
    assert (found.status, found.reason, found.cases) == ("ok", "", 3)
    assert found.sizes == [{"batch": 1}, {"batch": 2}, {"batch": 3}]
    assert found.sessions == ["disabled", "all"]
    assert found.max_abs < 1e-6


@pytest.mark.parametrize("name", ["mnist_cnn_0", "mnist_resnet", "mnist_mobilenet"])
def test_shipped_models_give_their_own_answers(name: str) -> None:
    built = ir.load(MODELS / f"{name}.onnx")
    found = Verifier(built).check(built)
    assert found.status == "ok"
    assert set(found.noise) == set(found.outputs)
    assert found.not_run == []


def test_another_order_of_sums_is_rounding() -> None:
    scale = weights(4, seed=1)
    original = model(
        "float[n,6] x -> float[n,4] y", "a = MatMul(x, w)\ny = Mul(a, s)", {"w": W, "s": scale}
    )
    assert Verifier(original).check(linear(lambda w: w * scale)).status == "ok"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w * np.float32(1.0005), "elements are off by up to"),
        (lambda w: w * np.float32(1.0002), "all in all it is off"),
        (lambda w: w[::-1].copy(), "elements are off by up to"),
        (lambda w: np.where(w == w[2, 1], np.nan, w), "off by NaN or infinity"),
    ],
)
def test_wrong_weights_are_found(change: Callable[[Array], Array], reason: str) -> None:
    found = Verifier(LINEAR).check(linear(change))
    assert found.status == "failed"
    assert reason in found.reason
    assert "at batch=" in found.reason
    assert found.outputs["y"].status == "failed"


def test_a_shape_that_holds_for_one_size_only_is_found() -> None:
    fixed = model(
        "float[batch,6] x -> float[batch,4] y",
        "a = MatMul(x, w)\ny = Reshape(a, s)",
        {"w": W, "s": np.array([1, 4])},
    )
    found = Verifier(LINEAR).check(fixed)
    assert found.status == "failed"
    assert "it does not run at batch=2 (optimizations: disabled)" in found.reason
    other = model("float[batch,6] x -> y", "a = MatMul(x, w)\ny = Unsqueeze(a, s)",
                  {"w": W, "s": np.array([0])})  # fmt: skip
    original = LINEAR.clone()
    original.graph.outputs[0].shape = None
    assert "has shape (1, 1, 4), not (1, 4)" in Verifier(original).check(other).reason


def test_a_signature_that_is_not_kept_fails_before_anything_runs() -> None:
    renamed = model("float[batch,6] z -> float[batch,4] y", "y = MatMul(z, w)", {"w": W})
    found = Verifier(LINEAR).check(renamed)
    assert found.status == "failed"
    assert found.reason == "the inputs are ['z'] and were ['x']"
    assert found.cases == 0


def test_another_type_of_answer_is_found() -> None:
    original = model("float[batch,6] x -> y", "y = MatMul(x, w)", {"w": W})
    other = model("float[batch,6] x -> y", "a = MatMul(x, w)\ny = Cast <to=11> (a)", {"w": W})
    assert "it is float64, not float32" in Verifier(original).check(other).reason


def test_a_candidate_that_does_not_load_fails() -> None:
    strange = model("float[batch,6] x -> float[batch,4] y", "y = nowhere.Magic (x)")
    found = Verifier(LINEAR).check(strange)
    assert found.status == "failed"
    assert "it cannot be loaded (optimizations: disabled)" in found.reason


def test_an_original_that_does_not_load_is_not_run_and_not_passed() -> None:
    strange = model("float[batch,6] x -> float[batch,4] y", "y = nowhere.Magic (x)")
    watched = Verifier(strange)
    found = watched.check(strange)
    assert found.status == "not-run"
    assert "the original cannot be loaded" in found.reason
    watched.rebase(strange)
    assert watched.check(strange).status == "not-run"


def test_an_original_that_accepts_nothing_is_not_run() -> None:
    hopeless = model("float[n,3] x -> y", "y = Reshape(x, s)", {"s": np.array([7, 11, 13])})
    found = Verifier(hopeless).check(hopeless)
    assert found.status == "not-run"
    assert "no inputs were found that the original accepts, at n=1" in found.reason


def test_inputs_that_cannot_be_made_up_are_not_run() -> None:
    sequence = model("seq(float[2]) x -> int64 y", "y = SequenceLength(x)")
    found = Verifier(sequence).check(sequence)
    assert found.status == "not-run"
    assert "'x' is no tensor" in found.reason


RANDOM = "float[n,3] x -> float[n,3] y, float[n,3] z"


def test_random_outputs_are_not_comparable_and_the_others_are_compared() -> None:
    original = model(RANDOM, "r = RandomNormalLike(x)\ny = Add(x, r)\nz = Exp(x)")
    found = Verifier(original).check(original)
    assert found.status == "ok"
    assert found.outputs["y"].status == "not-comparable"
    assert found.outputs["z"].status == "ok"
    assert "output 'y' is not comparable: it depends on RandomNormalLike" in found.reason
    wrong = model(RANDOM, "r = RandomNormalLike(x)\ny = Add(x, r)\nz = Neg(x)")
    assert Verifier(original).check(wrong).status == "failed"
    bent = model(RANDOM, "r = RandomNormal <shape=[1,3]> ()\ny = Identity(r)\nz = Exp(x)")
    assert "has shape (1, 3), not (2, 3)" in Verifier(original).check(bent).reason


def test_a_model_of_nothing_but_noise_is_not_comparable() -> None:
    noise = model("float[n,3] x -> float[n,3] y", "y = RandomNormalLike(x)")
    found = Verifier(noise).check(noise)
    assert found.status == "not-comparable"
    assert "drawn anew" in found.reason


# Columns 1 and 3 are the same, so a maximum of one is a maximum of the other.
TIED = np.stack([-np.abs(W[:, 0]), np.abs(W[:, 1]), -np.abs(W[:, 2]), np.abs(W[:, 1])], axis=1)


def decide(pick: str, table: Array = TIED) -> ir.Model:
    return model(
        "float[n,6] x -> int64[n] y, float[n,4] z",
        f"z = MatMul(x, w)\ny = ArgMax <axis=1, keepdims=0{pick}> (z)",
        {"w": table},
    )


def test_a_tie_may_fall_to_either_side_but_is_reported() -> None:
    watched = Verifier(decide(""), kinds={"x": "uniform(0.1,1)"})
    found = watched.check(decide(", select_last_index=1"))
    assert found.outputs["z"].status == "ok"
    assert found.outputs["y"].status == "not-comparable"
    assert "rounding errors alone move" in found.outputs["y"].reason
    assert found.outputs["y"].undecided == found.outputs["y"].elements == 12
    assert watched.check(decide("")).outputs["y"].status == "ok"


def test_a_decision_that_is_clear_has_to_stay() -> None:
    watched = Verifier(decide("", W), kinds={"x": "uniform(0.1,1)"})
    assert watched.check(decide("", W)).status == "ok"
    wrong = watched.check(decide("", W[:, [1, 0, 2, 3]].copy()))
    assert wrong.status == "failed"
    found = Verifier(decide("", W)).check(decide(", select_last_index=1", W))
    assert (found.status, found.outputs["y"].undecided) == ("ok", 0)


def test_a_saturated_answer_does_not_hide_what_is_squashed() -> None:
    def squashed(shift: float, activation: str) -> ir.Model:
        return model(
            "float[n,6] x -> float[n,4] y",
            f"a = MatMul(x, w)\nb = Sub(a, s)\ny = {activation}(b)",
            {"w": W, "s": np.float32(shift)},
        )

    watched = Verifier(squashed(60, "Sigmoid"))
    wrong = watched.check(squashed(59.9, "Sigmoid"))
    assert wrong.status == "failed"
    assert "(before Sigmoid)" in wrong.reason
    assert wrong.outputs["y"].fidelity.max_abs < 1e-12
    # Softmax answers the same whatever is added to all of its inputs.
    assert Verifier(squashed(60, "Softmax")).check(squashed(3, "Softmax")).status == "ok"


def test_an_activation_that_is_computed_otherwise_is_compared_by_its_answers() -> None:
    original = model("float[n,6] x -> float[n,6] y", "a = Neg(x)\ny = Sigmoid(a)")
    other = model(
        "float[n,6] x -> float[n,6] y", "e = Exp(x)\nf = Add(e, o)\ny = Div(o, f)",
        {"o": np.float32(1)},
    )  # fmt: skip
    assert Verifier(original).check(other).status == "ok"


def test_how_many_results_there_are_may_depend_on_rounding() -> None:
    def counted(threshold: float) -> ir.Model:
        return model(
            "float[n,6] x -> int64[2,k] y",
            "a = MatMul(x, w)\nb = Greater(a, t)\ny = NonZero(b)",
            {"w": W, "t": np.float32(threshold)},
        )

    watched = Verifier(counted(0.1), kinds={"x": "normal(0,1)"})
    assert watched.check(counted(0.1)).status == "ok"
    found = watched.check(counted(0.6))
    assert found.status == "failed"
    assert "has shape" in found.reason
    loose = watched.check(counted(0.6), LOOSE)
    assert loose.status == "not-comparable"
    assert "how many results there are" in loose.reason
    # On the threshold itself the original does not settle how many there are.
    edge = model(
        "float[3,6] x -> int64[2,k] y",
        "a = MatMul(x, w)\nb = MatMul(x, v)\nc = Greater(a, b)\ny = NonZero(c)",
        {"w": W, "v": W.copy()},
    )
    always = model(
        "float[3,6] x -> int64[2,k] y",
        "a = MatMul(x, w)\nc = GreaterOrEqual(a, a)\ny = NonZero(c)",
        {"w": W},
    )
    assert Verifier(edge).check(always).status == "not-comparable"


def test_sequences_are_compared_item_by_item() -> None:
    def split(second: str) -> ir.Model:
        return model(
            "float[n,4] x -> seq(float) y",
            f"a = Neg(x)\nb = {second}(x)\ny = SequenceConstruct(a, b)",
        )

    watched = Verifier(split("Exp"))
    assert watched.check(split("Exp")).status == "ok"
    found = watched.check(split("Abs"))
    assert found.status == "failed"
    assert "([1])" in found.reason


def test_maps_are_compared_by_keys_and_values() -> None:
    def mapped(labels: list[str]) -> ir.Model:
        names = ", ".join(f'"{label}"' for label in labels)
        built = model(
            "float[n,2] x -> y", f"y = ai.onnx.ml.ZipMap <classlabels_strings=[{names}]> (x)"
        )
        built.graph.outputs[0].type = None
        return built

    built = mapped(["cat", "dog"])
    assert {leaf.part for leaf in Verifier(built)._answers[0]} == {"keys", "values"}
    assert Verifier(built).check(built).status == "ok"
    assert "(keys)" in Verifier(built).check(mapped(["cat", "cow"])).reason


def test_an_approximate_contract_is_held_to_its_ratio() -> None:
    watched = Verifier(LINEAR)
    near, far = linear(lambda w: w * np.float32(1.05)), linear(lambda w: w * np.float32(1.5))
    assert watched.check(near).status == "failed"
    assert watched.check(near, LOOSE).status == "ok"
    assert watched.check(near, LOOSE).sqnr_db == pytest.approx(26.02, abs=0.01)
    found = watched.check(far, LOOSE)
    assert found.status == "failed"
    assert "the signal-to-noise ratio is 6.0 dB, the contract asks for 20.0 dB" in found.reason
    lost = watched.check(linear(lambda w: np.where(w == w[2, 1], np.nan, w)), LOOSE)
    assert "NaN or infinity where the original has not" in lost.reason


def test_an_approximate_pass_is_measured_on_the_samples_if_there_are_some() -> None:
    ones = Samples({"x": np.ones((2, 6), np.float32)})
    moved = linear(lambda w: w + np.array([[5], [-5], [0], [0], [0], [0]], np.float32))
    assert Verifier(LINEAR).check(moved, LOOSE).status == "failed"
    watched = Verifier(LINEAR, data=ones)
    found = watched.check(moved, LOOSE)
    assert (found.status, found.cases, found.sizes) == ("ok", 1, [{"batch": 2}])
    assert watched.check(moved).status == "failed"
    assert watched.check(LINEAR).cases == 4


def test_samples_alone_can_be_enough() -> None:
    samples = Samples({"x": np.ones((2, 6), np.float32)}, {"x": np.zeros((5, 6), np.float32)})
    found = Verifier(LINEAR, data=samples, cases=0).check(LINEAR)
    assert found.sizes == [{"batch": 2}, {"batch": 5}]


def test_samples_that_do_not_fit_are_the_user_s_error() -> None:
    with pytest.raises(DataError, match="does not accept batch 2 of the data"):
        Verifier(
            LINEAR,
            data=Samples({"x": np.ones((2, 6), np.float32)}, {"x": np.ones((2, 7), np.float32)}),
        )


def test_sizes_and_kinds_can_be_settled() -> None:
    watched = Verifier(LINEAR, dims={"batch": 5}, kinds={"x": "constant(2)"})
    assert watched.check(LINEAR).sizes == [{"batch": 5}] * 3
    assert all(np.all(feeds["x"] == 2) for feeds in watched.feeds)
    with pytest.raises(UsageError, match="no input has a dynamic dimension 'lot'"):
        Verifier(LINEAR, dims={"lot": 5})


def test_after_a_rebase_the_new_model_is_right() -> None:
    watched = Verifier(LINEAR)
    moved = linear(lambda w: w * np.float32(1.05))
    watched.rebase(moved)
    assert watched.check(moved).status == "ok"
    assert watched.check(LINEAR).status == "failed"


def test_the_original_may_change_afterwards() -> None:
    original = LINEAR.clone()
    watched = Verifier(original)
    next(iter(original.graph)).op_type = "Relu"
    assert watched.check(LINEAR).status == "ok"


def test_the_report_is_json_and_has_its_keys() -> None:
    found = Verifier(LINEAR).check(linear(lambda w: w * np.float32(1.1))).to_json()
    json.dumps(found, allow_nan=False)
    assert {"status", "reason", "max_abs", "max_rel", "sqnr_db", "outputs", "sizes"} <= set(found)
    assert {"cases", "not_run", "noise", "sessions"} <= set(found)
    assert found["sqnr_db"] == pytest.approx(20, abs=0.1)
    assert found["outputs"]["y"]["cosine"] == pytest.approx(1)
    empty = Verifier(LINEAR).check(model("float z -> float y", "y = Neg(z)")).to_json()
    assert empty["max_abs"] is None


class Twisted:
    """A session that answers wrong where it is told to."""

    def __init__(self, session: Session, twist: Callable[[Array], Array]) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self._session, self._twist = session, twist

    def run(self, feeds: Feeds) -> dict[str, Array]:
        return {name: self._twist(array) for name, array in self._session.run(feeds).items()}


class Changed:
    """Loads models with ONNX Runtime, and changes the sessions."""

    def __init__(self, change: Callable[[Session, ir.Model, SessionConfig], Session]) -> None:
        self._change = change

    def __call__(
        self,
        model: ir.Model,
        config: SessionConfig = SessionConfig(),  # noqa: B008
        outputs: Sequence[str] | None = None,
    ) -> Session:
        return self._change(session_of(model, config, outputs), model, config)


def is_candidate(built: ir.Model) -> bool:
    return built.producer_name == "candidate"


CANDIDATE = LINEAR.clone()
CANDIDATE.producer_name = "candidate"


def test_a_rewrite_that_the_optimizer_breaks_is_found() -> None:
    def change(session: Session, built: ir.Model, config: SessionConfig) -> Session:
        wrong = is_candidate(built) and config.level == "all"
        return Twisted(session, lambda a: a * 2) if wrong else session

    found = Verifier(LINEAR, sessions=Changed(change)).check(CANDIDATE)
    assert found.status == "failed"
    assert "(optimizations: all)" in found.reason


def test_what_the_optimized_original_answers_is_the_original_s_answer() -> None:
    def change(session: Session, built: ir.Model, config: SessionConfig) -> Session:
        return Twisted(session, lambda a: a * 2) if config.level == "all" else session

    watched = Verifier(LINEAR, sessions=Changed(change))
    found = watched.check(CANDIDATE)
    assert found.status == "ok"
    assert found.noise["y"].max_rel == pytest.approx(1)
    assert watched.check(linear(lambda w: w * np.float32(3))).status == "failed"


def test_an_answer_far_beyond_what_rounding_moves_is_wrong_where_nothing_is_sure() -> None:
    """The difference of two large numbers that are nearly the same: all digits are rounding."""

    def cancelled(factor: float) -> ir.Model:
        return model(
            "float[n,6] x -> float[n,4] y",
            "a = MatMul(x, w)\nb = MatMul(x, v)\nc = Sub(a, b)\ny = Mul(c, f)",
            {"w": W, "v": (W.astype(np.float64) * (1 + 1e-5)).astype(np.float32),
             "f": np.float32(factor)},
        )  # fmt: skip

    watched = Verifier(cancelled(1))
    assert watched.check(cancelled(1.1)).status == "not-comparable"
    assert watched.check(cancelled(100)).status == "failed"


def test_a_session_that_loads_neither_model_is_reported_as_not_run() -> None:
    def change(session: Session, built: ir.Model, config: SessionConfig) -> Session:
        if config.level == "all":
            raise BackendError("no room")
        return session

    found = Verifier(LINEAR, sessions=Changed(change)).check(CANDIDATE)
    assert (found.status, found.sessions, found.noise) == ("ok", ["disabled"], {})
    assert found.not_run == ["the optimized session: neither model loads: no room"]
    assert found.reason == found.not_run[0]


def test_a_run_that_neither_model_survives_is_reported_as_not_run() -> None:
    def refuse(array: Array) -> Array:
        if array.shape[0] == 2:
            raise BackendError("not two")
        return array

    def change(session: Session, built: ir.Model, config: SessionConfig) -> Session:
        return Twisted(session, refuse) if config.level == "all" else session

    found = Verifier(LINEAR, sessions=Changed(change)).check(CANDIDATE)
    assert found.status == "ok"
    assert found.not_run == ["neither model runs at batch=2 (optimizations: all): not two"]


def test_one_session_at_a_time() -> None:
    alive: list[int] = [0]
    most: list[int] = [0]

    def change(session: Session, built: ir.Model, config: SessionConfig) -> Session:
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        weakref.finalize(session, lambda: alive.__setitem__(0, alive[0] - 1))
        return session

    watched = Verifier(LINEAR, sessions=Changed(change))
    assert watched.check(CANDIDATE).status == "ok"
    watched.rebase(CANDIDATE)
    assert watched.check(CANDIDATE).status == "ok"
    assert most == [1]


def test_a_large_model_is_not_copied_to_tell_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxpress.compiler.verify.reference.LARGE", 1)
    watched = Verifier(decide(""), kinds={"x": "uniform(0.1,1)"})
    found = watched.check(decide(", select_last_index=1"))
    assert found.outputs["y"].status == "failed"


def test_answers_that_do_not_fit_in_memory_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MEMORY", 64)
    found = Verifier(LINEAR).check(LINEAR)
    assert found.status == "ok"
    assert found.cases == 2
    assert "the run at {'batch': 3}: its answers take" in found.reason


CORPUS = ["ppocr-det", "ppocr-rec", "silero-vad", "magika", "nudenet-320n", "deepcut", "attacut-c"]


@pytest.mark.corpus
@pytest.mark.parametrize("name", CORPUS)
def test_a_weight_of_a_real_model_that_is_off_by_a_percent_is_found(name: str) -> None:
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    from benchmarks.corpus import load_corpus

    path = load_corpus()[name].path
    if not path.exists():
        pytest.skip("not fetched")
    original = ir.load(path)
    watched = Verifier(original)
    assert watched.check(original).status == "ok"
    candidate = original.clone()
    LiftConstantsToInitializersPass()(candidate)
    read = [
        value
        for graph in candidate.graphs()
        for value in graph.initializers.values()
        if any(use.node.op_type == "Conv" and use.idx == 1 for use in value.uses())
    ]
    rng = np.random.default_rng(0)
    for value in (read[index] for index in rng.integers(0, len(read), 4)):
        right = value.const_value
        assert right is not None
        value.const_value = ir.tensor(right.numpy() * np.float32(1.01), name=value.name)
        assert watched.check(candidate).status == "failed", value.name
        value.const_value = right
