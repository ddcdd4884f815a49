"""Sessions: right answers from every kind of source, the model untouched, errors in plain words."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from onnxpress.backends.base import Array, OptimizationLevel, SessionConfig, TensorSpec
from onnxpress.backends.errors import BackendError, ProviderUnavailableError
from onnxpress.backends.ort import OrtBackend, _place_for, providers_of, session_of, specs_of

W = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(3, 200)).astype(np.float32)
DISABLED = SessionConfig(level="disabled", threads=1)

TWO_LAYERS = """
main (float[n,200] x) => (float[n,200] y) {
  t = MatMul(x, w)
  r = Relu(t)
  y = Neg(r)
}
"""


def parsed(text: str, opset: int = 17, **weights: Array) -> onnx.ModelProto:
    header = f'<ir_version: 9, opset_import: ["" : {opset}]>'
    proto = onnx.parser.parse_model(header + text)
    proto.graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in weights.items())
    return proto


def in_memory(_folder: Path) -> ir.Model:
    return ir.from_proto(parsed(TWO_LAYERS, w=W))


def in_a_file(folder: Path) -> str:
    onnx.save(parsed(TWO_LAYERS, w=W), folder / "m.onnx")
    return str(folder / "m.onnx")


def external_file(folder: Path) -> Path:
    path = folder / "external.onnx"
    onnx.save(
        parsed(TWO_LAYERS, w=W),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def external_model(folder: Path) -> ir.Model:
    return ir.load(external_file(folder))


def external_twice(folder: Path) -> ir.Model:
    """Weights in two folders, of which ONNX Runtime maps one only."""
    model, other = external_model(folder), folder / "other"
    other.mkdir()
    tensor = ir.load(external_file(other)).graph.initializers["w"].const_value
    value = ir.Value(name="other", const_value=tensor, type=ir.TensorType(ir.DataType.FLOAT))
    model.graph.register_initializer(value)
    total = ir.node("Sub", [value, value])
    first = model.graph[0]
    zero = ir.node("MatMul", [first.inputs[0], total.outputs[0]])
    product = first.outputs[0]
    add = ir.node("Add", [product, zero.outputs[0]])
    model.graph.insert_after(first, [total, zero, add])
    product.replace_all_uses_with(add.outputs[0])
    add.replace_input_with(0, product)
    return model


def serialized(_folder: Path) -> bytes:
    data: bytes = parsed(TWO_LAYERS, w=W).SerializeToString()
    return data


SOURCES = [in_memory, in_a_file, external_file, external_model, external_twice, serialized]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "layout", "all"])
def test_answers_from_every_source_at_every_level(
    tmp_path: Path, source: Callable[[Path], Any], level: OptimizationLevel
) -> None:
    session = session_of(source(tmp_path), SessionConfig(level=level, threads=1))

    assert session.inputs == [TensorSpec("x", "float", ("n", 200))]
    assert session.outputs == [TensorSpec("y", "float", ("n", 200))]
    answers = session.run({"x": X})
    assert list(answers) == ["y"]
    np.testing.assert_allclose(answers["y"], -np.maximum(X @ W, 0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("level", ["disabled", "all"])
def test_any_value_of_the_main_graph_can_be_fetched(
    tmp_path: Path, source: Callable[[Path], Any], level: OptimizationLevel
) -> None:
    session = session_of(source(tmp_path), SessionConfig(level=level), ["t", "w", "x", "t"])

    answers = session.run({"x": X})

    assert list(answers) == ["t", "w", "x"]
    np.testing.assert_allclose(answers["t"], X @ W, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(answers["w"], W)
    np.testing.assert_array_equal(answers["x"], X)


@pytest.mark.parametrize("source", [in_memory, external_model])
@pytest.mark.parametrize("outputs", [None, ["t"]])
def test_the_model_stays_as_it_is(
    tmp_path: Path, source: Callable[[Path], ir.Model], outputs: list[str] | None
) -> None:
    model = source(tmp_path)
    before, tensor = ir.to_onnx_text(model), model.graph.initializers["w"].const_value

    session_of(model, outputs=outputs).run({"x": X})

    assert ir.to_onnx_text(model) == before
    assert model.graph.initializers["w"].const_value is tensor


def test_what_the_outputs_do_not_need_is_not_computed() -> None:
    text = """
    main (float[n,200] x) => (float y) {
      t = Relu(x)
      e = Reshape(t, shape)
      y = ReduceSum <keepdims = 0> (e)
    }
    """
    model = ir.from_proto(parsed(text, shape=np.array([7, 11])))  # fails whenever it runs

    np.testing.assert_array_equal(
        session_of(model, outputs=["t"]).run({"x": X})["t"], np.maximum(X, 0)
    )
    with pytest.raises(BackendError, match="Reshape failed"):
        session_of(model).run({"x": X})


def gather(weight: Array) -> ir.Model:
    return ir.from_proto(
        parsed("main (int64[n] i) => (float[n,m] y) { y = Gather(w, i) }", w=weight)
    )


def test_large_weights_are_shared_without_optimizations_and_copied_with_them() -> None:
    for config, shared in ((DISABLED, True), (SessionConfig(), False)):
        weight = W.copy()
        model = gather(weight)
        tensor = ir.Tensor(weight, name="w")
        model.graph.initializers["w"].const_value = tensor
        session = session_of(model, config)
        weight[5] = 1.5
        assert (session.run({"i": np.array([5])})["y"] == 1.5).all() == shared


def test_shared_weights_live_as_long_as_their_session() -> None:
    session = session_of(gather(W.copy()), DISABLED)
    gc.collect()
    _overwrite = [np.zeros_like(W) for _ in range(50)]

    np.testing.assert_array_equal(session.run({"i": np.array([5])})["y"][0], W[5])


@pytest.mark.parametrize("level", ["basic", "all"])
def test_optimizations_may_replace_a_weight_under_its_own_name(level: OptimizationLevel) -> None:
    # ONNX Runtime transposes `w` in place to cancel the two Transposes.
    text = """
    main (float[1,70,50,60] x) => (float[1,70,50,60] y) {
      t = Transpose <perm = [0,2,3,1]> (x)
      r = Relu(t)
      a = Add(r, w)
      y = Transpose <perm = [0,3,1,2]> (a)
    }
    """
    rng = np.random.default_rng(0)
    w = rng.normal(size=(1, 50, 60, 70)).astype(np.float32)
    x = rng.normal(size=(1, 70, 50, 60)).astype(np.float32)
    model = ir.from_proto(parsed(text, w=w))

    answer = session_of(model, SessionConfig(level=level)).run({"x": x})["y"]

    np.testing.assert_array_equal(answer, np.maximum(x, 0) + w.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("level", ["disabled", "all"])
@pytest.mark.parametrize(
    ("text", "weights", "expected"),
    [
        # An input with a default is not fed.
        ("main (float[n,200] x, float[200,200] w) => (float[n,200] y) { y = MatMul(x, w) }",
         {"w": W}, X @ W),
        # A name that is no file name.
        ('main (float[n,200] x) => (float[n,200] y) { y = MatMul(x, "../w") }', {"../w": W}, X @ W),
        # Read inside a subgraph only.
        ("""main (float[n,200] x) => (float[n,200] y) {
            y = If (yes) <then_branch = a () => (float[n,200] p) { p = MatMul(x, w) },
                          else_branch = b () => (float[n,200] q) { q = Relu(x) }>
         }""", {"w": W, "yes": np.array(True)}, X @ W),
    ],
)  # fmt: skip
def test_large_weights_in_odd_places(
    text: str, weights: dict[str, Any], expected: Array, level: OptimizationLevel
) -> None:
    session = session_of(ir.from_proto(parsed(text, **weights)), SessionConfig(level=level))

    assert [spec.name for spec in session.inputs] == ["x"]
    np.testing.assert_allclose(session.run({"x": X})["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", ["disabled", "all"])
def test_large_weights_of_a_subgraph(level: OptimizationLevel, tmp_path: Path) -> None:
    proto = parsed("""main (float[n,200] x, bool yes) => (float[n,200] y) {
        y = If (yes) <then_branch = a () => (float[n,200] p) { p = MatMul(x, v) },
                      else_branch = b () => (float[n,200] q) { q = Relu(x) }>
    }""")
    proto.graph.node[0].attribute[0].g.initializer.append(numpy_helper.from_array(W, "v"))
    feeds = {"x": X, "yes": np.array(True)}

    session = session_of(ir.from_proto(proto), SessionConfig(level=level))

    np.testing.assert_allclose(session.run(feeds)["y"], X @ W, rtol=1e-4, atol=1e-4)
    with pytest.raises(BackendError, match="no value 'p'") as caught:
        session_of(ir.from_proto(proto), outputs=["p"])
    assert "If and Loop bodies" in caught.value.hint


@pytest.mark.parametrize("level", ["disabled", "all"])
def test_large_weights_that_numpy_has_no_type_for(level: OptimizationLevel) -> None:
    text = """
    main (float s) => (float[p,k] y, float[p,k] z) {
      y = DequantizeLinear(q, s)
      z = Cast <to = 1> (b)
    }
    """
    rng = np.random.default_rng(0)
    packed = rng.integers(-8, 8, (400, 500)).astype(ml_dtypes.int4)
    brain = rng.normal(size=(300, 200)).astype(ml_dtypes.bfloat16)
    model = ir.from_proto(parsed(text, opset=21))
    for name, array in {"q": packed, "b": brain}.items():
        tensor = ir.tensor(array, name=name)
        loose = next(v for n in model.graph for v in n.inputs if v is not None and v.name == name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype))
        loose.replace_all_uses_with(value)
        model.graph.register_initializer(value)

    answers = session_of(model, SessionConfig(level=level)).run({"s": np.float32(2)})  # type: ignore[dict-item]

    np.testing.assert_array_equal(answers["y"], packed.astype(np.float32) * 2)
    np.testing.assert_array_equal(answers["z"], brain.astype(np.float32))


@pytest.mark.huge
def test_a_model_over_two_gigabytes_runs_from_memory() -> None:
    weight = np.zeros((650, 1024 * 1024), np.float32)
    weight[649] = 3
    model = gather(W)
    model.graph.initializers["w"].const_value = ir.Tensor(weight, name="w")

    assert (session_of(model, DISABLED).run({"i": np.array([649])})["y"] == 3).all()


FOREIGN = """
main (bfloat16[2] b, float8e4m3fn[2] f, int4[3] i)
    => (bfloat16[2] c, float g, float8e4m3fn[2] h, int4[3] j) {
  u = Cast <to = 1> (b)
  c = Cast <to = 16> (u)
  v = Cast <to = 1> (f)
  g = ReduceSum <keepdims = 0> (v)
  h = Cast <to = 17> (u)
  k = Cast <to = 1> (i)
  j = Cast <to = 22> (k)
}
"""


def test_types_that_numpy_does_not_know() -> None:
    feeds: dict[str, Array] = {
        "b": np.array([1.5, -2], ml_dtypes.bfloat16),
        "f": np.array([0.25, 3], ml_dtypes.float8_e4m3fn),
        "i": np.array([1, -8, 7], ml_dtypes.int4),
    }
    session = session_of(parsed(FOREIGN, opset=21).SerializeToString())
    bound = session.bind(feeds)
    bound()

    for answers in (session.run(feeds), bound.outputs()):
        assert [answers[name].dtype for name in "cghj"] == [
            ml_dtypes.bfloat16, np.float32, ml_dtypes.float8_e4m3fn, ml_dtypes.int4
        ]  # fmt: skip
        np.testing.assert_array_equal(answers["c"], feeds["b"])
        np.testing.assert_array_equal(answers["h"], feeds["b"].astype(ml_dtypes.float8_e4m3fn))
        np.testing.assert_array_equal(answers["j"], feeds["i"])
        assert float(answers["g"]) == 3.25

    with pytest.raises(BackendError, match="'b' is bfloat16, not float32") as caught:
        session.run({**feeds, "b": np.zeros(2, np.float32)})
    assert caught.value.hint == "cast it: array.astype(ml_dtypes.bfloat16)"


@pytest.mark.parametrize(
    "strings",
    [
        np.array(["ä", "bc"]),
        np.array(["ä".encode(), b"bc"]),
        np.array(["ä".encode(), "bc"], dtype=object),
        np.array(["ä", "bc"], dtype=np.dtypes.StringDType()),
    ],
)
def test_strings_in_every_form_numpy_has(strings: Array) -> None:
    session = session_of(
        parsed("main (string[2] s) => (string[2] y) { y = Identity(s) }").SerializeToString()
    )
    bound = session.bind({"s": strings})
    bound()

    for answers in (session.run({"s": strings}), bound.outputs()):
        assert answers["y"].tolist() == ["ä", "bc"]


def test_other_byte_orders_and_strides() -> None:
    session = session_of(parsed(TWO_LAYERS, w=W).SerializeToString())
    expected = session.run({"x": X})["y"]

    for x in (X.astype(">f4"), np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(session.run({"x": x})["y"], expected)
        bound = session.bind({"x": x})
        bound()
        np.testing.assert_array_equal(bound.outputs()["y"], expected)


def zip_map() -> onnx.ModelProto:
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[3, 7])
    labels = helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, []))
    y = helper.make_value_info("y", helper.make_sequence_type_proto(labels))
    x = helper.make_tensor_value_info("x", 1, ["n", 2])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(
        helper.make_graph([node], "g", [x], [y]), ir_version=9, opset_imports=opsets
    )


def test_outputs_that_are_no_tensors_are_arrays_of_objects() -> None:
    session = session_of(zip_map().SerializeToString())
    feeds = {"x": np.eye(2, dtype=np.float32)}

    assert session.outputs == [TensorSpec("y", "seq(map(int64,tensor(float)))", None)]
    answer = session.run(feeds)["y"]
    assert answer.dtype == object
    assert answer.tolist() == [{3: 1.0, 7: 0.0}, {3: 0.0, 7: 1.0}]

    bound = session.bind(feeds)
    bound()
    assert bound.outputs()["y"].tolist() == answer.tolist()


def test_sequences_and_optionals() -> None:
    text = """
    main (seq(float[n]) s, optional(float[n]) o) => (seq(float[n]) t, optional(float[n]) p) {
      t = Identity(s)
      p = Identity(o)
    }
    """
    session = session_of(parsed(text).SerializeToString())
    items = [np.ones(2, np.float32), np.zeros(2, np.float32)]

    answers = session.run({"s": items, "o": None})  # type: ignore[dict-item]

    assert answers["t"].shape == (2,)
    np.testing.assert_array_equal(answers["t"][1], items[1])
    assert answers["p"].shape == ()
    assert answers["p"].item() is None
    bound = session.bind({"s": items, "o": items[0]})  # type: ignore[dict-item]
    bound()
    np.testing.assert_array_equal(bound.outputs()["t"][0], items[0])
    np.testing.assert_array_equal(bound.outputs()["p"], items[0])


def test_a_bound_run_answers_again_and_again() -> None:
    session = session_of(parsed(TWO_LAYERS, w=W).SerializeToString())
    bound = session.bind({"x": X.copy()})
    gc.collect()

    for _ in range(3):
        bound()
        np.testing.assert_array_equal(bound.outputs()["y"], session.run({"x": X})["y"])


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "Required inputs"),
        ({"x": X, "z": X}, "has no input 'z'"),
        ({"x": X.astype(np.float64)}, r"Actual: \(tensor\(double\)\)"),
        ({"x": X[:, :7]}, "index: 1 Got: 7 Expected: 200"),
        ({"x": X[0]}, "Invalid rank for input: x Got: 1 Expected: 2"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, Array], message: str) -> None:
    session = session_of(parsed(TWO_LAYERS, w=W).SerializeToString())

    with pytest.raises(BackendError, match=message) as caught:
        session.run(feeds)
    assert caught.value.hint
    with pytest.raises(BackendError):
        session.bind(feeds)()
    with pytest.raises(BackendError, match="takes an array, not list"):
        session.bind({"x": X.tolist()})


def test_models_that_cannot_be_loaded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    lost = external_file(tmp_path)
    (tmp_path / "weights.bin").unlink()
    cases: dict[str | bytes, str] = {
        str(tmp_path / "none.onnx"): "File doesn't exist",
        str(tmp_path / "text.onnx"): "Protobuf parsing failed",
        str(lost): "External data path does not exist",
        b"": "No graph was found",
    }
    for source, message in cases.items():
        with pytest.raises(BackendError, match=message) as caught:
            session_of(source)
        assert "onnxruntime_src" not in caught.value.message
        with pytest.raises(BackendError, match=r"cannot be|no value 'y'"):
            session_of(source, outputs=["y"])
    assert capfd.readouterr() == ("", "")


def test_unknown_operators_and_entries() -> None:
    unknown = parsed("main (float[1] x) => (float[1] y) { y = Frobnicate(x) }")
    with pytest.raises(BackendError, match="Frobnicate") as caught:
        session_of(unknown.SerializeToString())
    assert "opset" in caught.value.hint

    with pytest.raises(BackendError, match="entry '' is not accepted"):
        session_of(serialized(Path()), SessionConfig(entries={"": "1"}))


def test_the_options_arrive() -> None:
    config = SessionConfig(
        level="basic", threads=1, prepacking=False, entries={"session.x64quantprecision": "1"}
    )

    options = session_of(serialized(Path()), config).native.get_session_options()

    assert options.intra_op_num_threads == 1
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    # ONNX Runtime warns of the initializer that nobody reads.
    session_of(parsed(TWO_LAYERS, w=W, unread=W).SerializeToString()).run({"x": X})

    assert capfd.readouterr() == ("", "")


def test_cuda_is_never_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SessionConfig(provider="cuda")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ProviderUnavailableError, match="has no CUDA"):
            session_of(serialized(Path()), config)

    # As if the package had CUDA, and ONNX Runtime silently ended up without it.
    monkeypatch.setattr("onnxpress.backends.ort.CUDA", "CPUExecutionProvider")
    monkeypatch.setattr("onnxpress.backends.ort._PROVIDERS", {"cuda": ["CPUExecutionProvider"]})
    monkeypatch.setattr("onnxpress.backends.ort.prepare_provider", lambda _: None)
    checked: list[str] = []
    monkeypatch.setattr("onnxpress.backends.ort.check_provider", checked.append)
    native = onnxruntime.InferenceSession
    monkeypatch.setattr(native, "get_providers", lambda _: [])
    with pytest.raises(ProviderUnavailableError, match="could not start its CUDA provider"):
        session_of(serialized(Path()), config)
    assert checked == ["cuda"]


def test_cuda_graphs_are_an_option_of_the_provider() -> None:
    assert providers_of(SessionConfig()) == ["CPUExecutionProvider"]
    assert providers_of(SessionConfig(provider="cuda", cuda_graphs=True)) == [
        ("CUDAExecutionProvider", {"enable_cuda_graph": "1"}),
        "CPUExecutionProvider",
    ]


def test_outputs_of_fixed_shape_can_lie_in_one_place() -> None:
    for dtype, kind in (("float", "float32"), ("float16", "float16"), ("int64", "int64")):
        place = _place_for(TensorSpec("y", dtype, (2, 3)), "cpu")
        assert place.numpy().dtype == kind
        assert place.shape() == [2, 3]
    with pytest.raises(BackendError, match="'y' has no fixed shape, which CUDA graphs need"):
        _place_for(TensorSpec("y", "float", ("batch", 3)), "cpu")


def test_transfers_are_timed_apart() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> m (float[n] x) => (float[n] y) { y = Abs(x) }'
    session = session_of(onnx.parser.parse_model(text).SerializeToString())
    feeds = {"x": np.array([-1, 2], np.float32)}
    run = session.bind(feeds)
    assert run.transfer_ms(feeds, times=3) > 0
    assert run.outputs()["y"].tolist() == [1, 2]


@pytest.mark.gpu
@pytest.mark.parametrize("source", [in_memory, external_model, serialized])
def test_cuda_gives_the_answers_of_the_cpu(tmp_path: Path, source: Callable[[Path], Any]) -> None:
    session = session_of(source(tmp_path), SessionConfig(provider="cuda"))
    bound = session.bind({"x": X})
    bound()

    for answers in (session.run({"x": X}), bound.outputs()):
        np.testing.assert_allclose(answers["y"], -np.maximum(X @ W, 0), rtol=1e-2, atol=1e-1)


@pytest.mark.gpu
def test_a_recorded_run_gives_the_same_answers() -> None:
    model = ir.from_proto(parsed(TWO_LAYERS.replace("[n,200]", "[3,200]"), w=W))
    session = session_of(model, SessionConfig(provider="cuda", cuda_graphs=True))
    bound = session.bind({"x": X})
    for _ in range(3):  # the first runs are recorded
        bound()

    np.testing.assert_allclose(bound.outputs()["y"], -np.maximum(X @ W, 0), rtol=1e-2, atol=1e-1)


def test_the_backend_makes_the_same_sessions() -> None:
    session = OrtBackend().session(serialized(Path()), DISABLED)

    assert session.config is DISABLED
    assert session.run({"x": X})["y"].shape == (3, 200)


def test_inputs_described_without_a_session() -> None:
    text = """
    main (float[n,?,3] x, seq(double[3]) s, optional(seq(int64[3])) o, float16 h, string[2] w)
        => (float[n,3] x) {}
    """
    model = ir.from_proto(parsed(text, w=np.array(["a", "b"], dtype=object)))
    model.graph.inputs[0].shape = None

    assert specs_of(model) == [
        TensorSpec("x", "float", None),
        TensorSpec("s", "seq(tensor(double))", (3,)),
        TensorSpec("o", "optional(seq(tensor(int64)))", (3,)),
        TensorSpec("h", "float16", ()),
    ]
    assert specs_of(in_memory(Path())) == [TensorSpec("x", "float", ("n", 200))]


def test_initializers_of_an_old_ir_version_need_not_be_inputs() -> None:
    model = ir.from_proto(parsed(TWO_LAYERS, w=W, unused=X))
    model.ir_version = 3
    (y,) = session_of(model, DISABLED).run({"x": X}).values()
    np.testing.assert_allclose(y, -np.maximum(X @ W, 0), rtol=1e-4, atol=1e-4)
    assert model.ir_version == 3


@pytest.mark.parametrize("level", ["disabled", "all"])
def test_a_large_initializer_that_nothing_reads_does_no_harm(level: OptimizationLevel) -> None:
    model = ir.from_proto(parsed(TWO_LAYERS, w=W, unused=W))
    (y,) = session_of(model, SessionConfig(level=level, threads=1)).run({"x": X}).values()
    np.testing.assert_allclose(y, -np.maximum(X @ W, 0), rtol=1e-4, atol=1e-4)
    assert "unused" in model.graph.initializers


def test_a_function_may_use_the_names_of_its_caller() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 17, "local" : 1]>
    main (float[N,4] x) => (float[N,4] y) { w = Neg (x)  y = local.f (w) }
    <domain: "local", opset_import: ["" : 17]>
    f (a) => (b) {
      c = Constant <value = bool {1}> ()
      b = If (c) <
        then_branch = t () => (float[N,4] p) <float[4] w = {1, 2, 3, 4}> { p = Mul (a, w) },
        else_branch = e () => (float[N,4] q) { q = Neg (a) }
      >
    }"""
    model = ir.from_onnx_text(text)
    answer = session_of(model).run({"x": np.ones((1, 4), np.float32)})
    np.testing.assert_array_equal(answer["y"], [[-1, -2, -3, -4]])


def test_a_bound_run_does_not_add_to_the_sequence_of_the_last() -> None:
    model = ir.from_proto(
        onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 17]>
            main (float[2,3] x) => (seq(float[2,3]) s, int64 n, float[4,3] y) {
              r = Relu (x)
              s = SequenceConstruct (x, r)
              n = SequenceLength (s)
              y = ConcatFromSequence <axis = 0> (s)
            }"""
        )
    )
    run = session_of(model).bind({"x": np.ones((2, 3), np.float32)})

    for _ in range(3):
        run()

    answers = run.outputs()
    assert int(answers["n"]) == 2
    assert answers["y"].shape == (4, 3)
