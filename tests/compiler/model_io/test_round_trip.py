"""What is loaded and saved says what the original said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnxpress.backends.errors import ModelError
from onnxpress.compiler.model_io import load, load_proto, save, warnings_of

Store = Callable[..., Path]

SHIPPED = Path(__file__).parents[3] / "benchmarks/models"
ONNX = Path(onnx.__file__).parent / "backend/test/data"
RELU = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }
"""
UNORDERED = {"metadata_props", "quantization_annotation", "opset_import", "value_info"}


def canonical(message: Any) -> Any:
    """``message`` as nested tuples, equal when messages say the same: tensors by value, defaults
    left out, unordered fields sorted, ``value_info`` that repeats another field left out.
    """
    if isinstance(message, TensorProto):
        array = onnx.numpy_helper.to_array(message)
        values = tuple(array.reshape(-1).tolist()) if array.dtype == object else array.tobytes()
        metadata = tuple(sorted((entry.key, entry.value) for entry in message.metadata_props))
        dims = tuple(message.dims)
        return message.name, message.data_type, dims, values, message.doc_string, metadata
    if not hasattr(message, "ListFields"):
        return message
    repeated = set()
    if isinstance(message, onnx.GraphProto):
        repeated = {item.name for item in (*message.initializer, *message.output)}
    said = []
    for field, value in message.ListFields():
        if field.is_repeated:
            kept = [v for v in value if field.name != "value_info" or v.name not in repeated]
            items = [canonical(item) for item in kept]
            if field.name in UNORDERED:
                items.sort(key=repr)
            if items:
                said.append((field.name, tuple(items)))
        elif field.message_type or field.containing_oneof or value != field.default_value:
            said.append((field.name, canonical(value)))
    return tuple(said)


def canonical_model(model: onnx.ModelProto) -> Any:
    """:func:`canonical` of a model. Before IR version 4 weights are inputs, in no special place."""
    if model.ir_version < 4:
        inputs = sorted(model.graph.input, key=lambda info: info.name)
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    return canonical(model)


def assert_survives(path: Path, folder: Path, **options: Any) -> ir.Model:
    model = load(path)
    out = folder / "out.onnx"
    save(model, out, **options)
    assert canonical_model(onnx.load(out)) == canonical_model(onnx.load(path))
    return load(out)


def model_with(*weights: TensorProto, ir_version: int = 10, opset: int = 21) -> onnx.ModelProto:
    """A model that hands each of ``weights`` out."""
    nodes = [helper.make_node("Identity", [t.name], [f"{t.name}_out"]) for t in weights]
    outputs = [helper.make_tensor_value_info(f"{t.name}_out", t.data_type, t.dims) for t in weights]
    graph = helper.make_graph(nodes, "g", [], outputs, list(weights))
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.onnx")), ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "options",
    [{}, {"external_data": True}, {"max_shard_bytes": 100_000}],
    ids=["inline", "external", "sharded"],
)
def test_a_shipped_model_survives(path: Path, options: dict[str, Any], tmp_path: Path) -> None:
    assert_survives(path, tmp_path, **options)


@pytest.mark.parametrize("path", sorted((ONNX / "light").glob("*.onnx")), ids=lambda p: p.stem)
def test_a_light_model_survives(path: Path, tmp_path: Path) -> None:
    assert_survives(path, tmp_path)


@pytest.mark.parametrize("path", sorted((ONNX / "simple").glob("*")), ids=lambda p: p.name)
def test_a_simple_model_survives(path: Path, tmp_path: Path) -> None:
    assert_survives(path / "model.onnx", tmp_path)


@pytest.mark.slow
def test_the_models_of_all_operator_tests_survive(tmp_path: Path, store: Store) -> None:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [case.model for case in collect_testcases(None) if case.model]
    survived = 0
    for model in models:
        if min((e.version for e in model.opset_import if not e.domain), default=99) >= 7:
            assert_survives(store(model), tmp_path)
            survived += 1
    assert survived > 1800


def weights_of_every_type() -> list[TensorProto]:
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 100, (3, 5)).astype(name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    }
    arrays |= {
        name: rng.normal(size=(3, 5)).astype(name) for name in ("float16", "float32", "float64")
    }
    arrays |= {"complex64": (rng.normal(size=(3, 5)) * 1j).astype("complex64")}
    arrays |= {"bool": rng.integers(0, 2, (3, 5)).astype(bool)}
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "int4", "uint4"):
        arrays[name] = rng.integers(0, 5, (3, 5)).astype(getattr(ml_dtypes, name))
    arrays |= {"scalar": np.array(3, np.float32), "empty": np.zeros((0, 4), np.float32)}
    arrays |= {"text": np.array([["a", ""], ["ö", "b"]], object)}
    tensors = [
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()
    ]
    for kind in ("float", "double", "int32", "int64", "uint64", "int8", "bool"):
        onnx_type = getattr(TensorProto, kind.upper())
        values = [True, False] if kind == "bool" else [1, 2]
        tensors.append(helper.make_tensor(f"field_{kind}", onnx_type, [2], values))
    tensors.append(helper.make_tensor("field_float16", TensorProto.FLOAT16, [2], [1.5, -2]))
    tensors.append(helper.make_tensor("field_uint4", TensorProto.UINT4, [3], [1, 2, 15]))
    tensors.append(
        TensorProto(name="field_complex64", data_type=14, dims=[2], float_data=[0, 1, 2, 0])
    )
    return tensors


@pytest.mark.parametrize("options", [{}, {"external_data": True}], ids=["inline", "external"])
def test_every_element_type_survives(options: Any, tmp_path: Path, store: Store) -> None:
    tensors = weights_of_every_type()
    large = []
    for tensor in tensors:
        array = onnx.numpy_helper.to_array(tensor)
        if array.size:
            big = np.resize(array, (70, 101))
            large.append(onnx.numpy_helper.from_array(big, f"large_{tensor.name}"))
    path = store(model_with(*tensors, *large))

    model = assert_survives(path, tmp_path, **options)

    original = load(path)
    for name, value in original.graph.initializers.items():
        found = model.graph.initializers[name].const_value
        assert found is not None
        assert value.const_value is not None
        assert found.dtype == value.const_value.dtype
        np.testing.assert_array_equal(found.numpy(), value.const_value.numpy())


def test_loaded_values_are_those_of_onnx(store: Store) -> None:
    tensors = weights_of_every_type()

    model = load(store(model_with(*tensors)))

    for tensor in tensors:
        loaded = model.graph.initializers[tensor.name].const_value
        assert loaded is not None
        expected = onnx.numpy_helper.to_array(tensor)
        if expected.dtype == object:
            expected = np.vectorize(str.encode, otypes=[object])(expected)
        np.testing.assert_array_equal(loaded.numpy(), expected)


def test_everything_that_is_said_survives(tmp_path: Path, store: Store) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    weight.doc_string = "of a tensor"
    weight.metadata_props.add(key="tensor", value="1")
    model = model_with(weight)
    model.producer_name, model.producer_version, model.domain = "maker", "1.2", "org"
    model.model_version, model.doc_string = 7, "of the model"
    model.metadata_props.add(key="labels", value='{"0": "ö"}')
    graph = model.graph
    graph.doc_string = "of the graph"
    graph.metadata_props.add(key="graph", value="2")
    graph.node[0].name, graph.node[0].doc_string = "copy", "of a node"
    graph.node[0].metadata_props.add(key="node", value="3")
    graph.output[0].doc_string = "of an output"
    graph.output[0].type.denotation = "TENSOR"
    graph.output[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    for name in ("w", "w_out"):
        annotation = graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")

    assert_survives(store(model), tmp_path)


def test_functions_and_subgraphs_survive(tmp_path: Path, store: Store) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    main (float[N,4] x, bool c) => (float[N,4] y) {
      a = local.scaled <by: float = 2.0> (x)
      y = If (c) <
        then_branch = yes () => (float[N,4] b) <float[4] w = {1, 2, 3, 4}> { b = Add (a, w) },
        else_branch = no () => (float[N,4] b) { b = Neg (a) }
      >
    }
    <domain: "local", opset_import: ["" : 21]>
    scaled <by: float = 1.0, other> (x) => (z) {
      k = Constant <value_float: float = @by> ()
      z = Mul (x, k)
    }
    """
    assert_survives(store(text), tmp_path)


def test_multi_device_configurations_survive(tmp_path: Path, store: Store) -> None:
    model = model_with(helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2]), ir_version=11)
    model.configuration.add(name="pair", num_devices=2, device=["a", "b"])
    node = model.graph.node[0].device_configurations.add(configuration_id="pair")
    node.sharding_spec.add(tensor_name="w", device=[0, 1])

    assert_survives(store(model), tmp_path)


def test_a_model_of_ir_version_3_keeps_it(tmp_path: Path, store: Store) -> None:
    text = """
    <ir_version: 3, opset_import: ["" : 9]>
    main (float[2] w, float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }
    """
    path = store(text)

    model = assert_survives(path, tmp_path)

    assert [value.name for value in model.graph.inputs] == ["x"]
    saved = onnx.load(tmp_path / "out.onnx")
    assert [info.name for info in saved.graph.input] == ["x", "w"]
    onnx.checker.check_model(saved)


def test_a_weight_that_is_an_input_stays_one(tmp_path: Path, store: Store) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }
    """
    path = store(text)

    model = assert_survives(path, tmp_path)

    assert [value.name for value in model.graph.inputs] == ["x", "w"]
    assert "1 weights are also inputs" in " ".join(warnings_of(model))


def test_an_input_that_is_an_output_keeps_its_shape(store: Store) -> None:
    text = RELU.replace("float[2,3] y)", "float[2,3] y, float[?,?] x)")
    model = load(store(onnx.parser.parse_model(text)))
    assert [value.shape for value in model.graph.inputs] == [(2, 3)]


def test_classifiers_of_scikit_learn_survive(tmp_path: Path, store: Store) -> None:
    """Their probabilities are a sequence of maps, a type that onnx_ir does not know."""
    of_floats = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, of_floats))
    graph = helper.make_graph(
        [
            helper.make_node(
                "DictVectorizer", ["d"], ["v"], domain="ai.onnx.ml", int64_vocabulary=[5, 6]
            ),
            helper.make_node(
                "ZipMap", ["v"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
            ),
        ],
        "g",
        [helper.make_value_info("d", helper.make_map_type_proto(TensorProto.INT64, of_floats))],
        [helper.make_value_info("z", maps)],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = store(helper.make_model(graph, opset_imports=imports, ir_version=8))

    assert_survives(path, tmp_path)

    session = ort.InferenceSession(tmp_path / "out.onnx")
    assert session.run(None, {"d": {5: 1.0, 6: 0.5}}) == [[{0: 1.0, 1: 0.5}]]


def sparse(name: str, indices: list[Any]) -> onnx.SparseTensorProto:
    values = helper.make_tensor(name, TensorProto.FLOAT, [2], [5, 7])
    places = np.array(indices, np.int64)
    return helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(places), [2, 3])


@pytest.mark.parametrize("indices", [[1, 5], [[0, 1], [1, 2]]], ids=["flat", "coordinates"])
def test_sparse_tensors_become_dense(indices: list[Any], tmp_path: Path, store: Store) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], sparse_value=sparse("", indices)),
            helper.make_node("Add", ["c", "s"], ["y"]),
        ],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        sparse_initializer=[sparse("s", indices)],
    )
    path = store(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )

    model = load(path)
    save(model, tmp_path / "out.onnx")

    assert warnings_of(model) == ["1 sparse initializers become dense"]
    dense = np.array([[0, 5, 0], [0, 0, 7]], np.float32)
    tensor = model.graph.initializers["s"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), dense)
    (answer,) = ort.InferenceSession(tmp_path / "out.onnx").run(None, {})
    np.testing.assert_array_equal(answer, 2 * dense)


@pytest.mark.parametrize(
    ("indices", "dims", "reason"),
    [
        ([1, 6], [2, 3], "do not fit"),
        ([-1, 2], [2, 3], "do not fit"),
        ([[0, 1], [2, 0]], [2, 3], "do not fit"),
        ([1, 2], [1 << 40, 1 << 20], "too large"),
        ([1, 2], [-2, 3], "too large"),
    ],
)
def test_sparse_tensors_that_lie_are_refused(
    indices: list[Any], dims: list[int], reason: str, store: Store
) -> None:
    lie = sparse("s", indices)
    lie.dims[:] = dims
    model = model_with(helper.make_tensor("w", TensorProto.FLOAT, [1], [1]))
    model.graph.sparse_initializer.append(lie)

    with pytest.raises(ModelError, match=f"sparse tensor 's' .* {reason}"):
        load(store(model))


def test_training_information_is_left_out_and_told(tmp_path: Path, store: Store) -> None:
    model = model_with(helper.make_tensor("w", TensorProto.FLOAT, [1], [1]))
    model.training_info.add().algorithm.name = "sgd"

    loaded = load(store(model))
    save(loaded, tmp_path / "out.onnx")

    assert "training information is left out" in " ".join(warnings_of(loaded))
    assert not onnx.load(tmp_path / "out.onnx").training_info


def test_operators_of_unknown_domains_pass_through(tmp_path: Path, store: Store) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "com.example" : 3]>
    main (float[N] x) => (float[N] y) {
      a = com.example.Magic <power = 3, words = ["a", "b"]> (x)
      y = Relu (a)
    }
    """
    assert_survives(store(text), tmp_path)


def test_nodes_are_sorted(tmp_path: Path, store: Store) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[2] x, bool c) => (float[2] y) {
      y = If (c) <then_branch = t () => (float[2] p) { p = Neg (q) q = Abs (b) },
                  else_branch = e () => (float[2] p) { p = Neg (b) }>
      b = Relu (a)
      a = Abs (x)
    }
    """
    model = load(store(text))

    assert [node.op_type for node in model.graph] == ["Abs", "Relu", "If"]
    assert "topological order" in warnings_of(model)[0]
    save(model, tmp_path / "out.onnx")
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    assert not warnings_of(load(tmp_path / "out.onnx"))


def test_spellings_of_the_standard_domain_are_one(store: Store) -> None:
    model = load(store(RELU.replace('"" : 17', '"ai.onnx" : 17')))
    assert model.opset_imports == {"": 17}


def test_a_missing_opset_is_the_newest(store: Store) -> None:
    model = load(store(RELU.replace('"" : 17', '"x" : 1')))
    assert model.opset_imports[""] == onnx.defs.onnx_opset_version()
    assert "taken to be the newest" in warnings_of(model)[0]


def test_negative_dimensions_are_unknown(store: Store) -> None:
    proto = onnx.parser.parse_model(RELU)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1

    model = load(store(proto))

    assert model.graph.inputs[0].shape == ir.Shape([None, 3])
    assert warnings_of(model) == ["1 negative dimensions are taken for unknown ones"]


def test_nodes_get_names_of_their_own(tmp_path: Path, store: Store) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y) {
      [n] a = Neg (x)
      ["n.1"] b = Neg (a)
      [n] c = Neg (b)
      [n] k = Constant <value_float = 1.0> ()
      [n] y = Add (c, k)
    }
    """
    path = store(text)
    with pytest.raises(Exception, match="two nodes with same node name"):
        ort.InferenceSession(path)

    model = load(path)
    save(model, tmp_path / "out.onnx")

    assert [node.name for node in model.graph] == ["n", "n.1", "n.2", "n", "n.3"]
    assert warnings_of(model) == [
        "several nodes are named 'n', which ONNX Runtime refuses; 2 are renamed"
    ]
    ort.InferenceSession(tmp_path / "out.onnx")


def test_a_protobuf_is_checked_repaired_and_left_alone() -> None:
    text = """
    <ir_version: 3, opset_import: ["ai.onnx" : 9]>
    g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Neg (a) a = Add (x, w) }
    """
    proto = onnx.parser.parse_model(text)
    before = proto.SerializeToString()

    model = load_proto(proto)

    assert proto.SerializeToString() == before
    assert [node.op_type for node in model.graph] == ["Add", "Neg"]
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert model.opset_imports == {"": 9}
    assert "topological order" in warnings_of(model)[0]
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="lies in no folder"):
        load_proto(proto)
    proto.graph.output[0].name = "nobody"
    with pytest.raises(ModelError, match="nothing in the graph 'g' computes"):
        load_proto(proto)
