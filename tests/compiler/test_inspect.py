"""The facts about a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.compiler.inspect import inspect
from onnxpress.compiler.model_io import load, save

RESNET = Path(__file__).parents[2] / "benchmarks/models/mnist_resnet.onnx"


def facts(model: onnx.ModelProto | str, folder: Path, **dims: int) -> dict[str, Any]:
    proto = onnx.parser.parse_model(model) if isinstance(model, str) else model
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return inspect(load(path), path, dims)


def test_a_shipped_model() -> None:
    found = inspect(load(RESNET), RESNET, {"batch": 2})

    operators = found.pop("operators")
    assert sum(operators.values()) == found["nodes"]
    assert list(operators)[:2] == ["BatchNormalization", "Conv"]
    assert found == {
        "nodes": 54,
        "parameters": 175_994,
        "bytes": RESNET.stat().st_size,
        "macs": 2 * 20_183_936,
        "opset": 17,
        "opset_imports": {"": 17},
        "ir_version": 8,
        "producer": "pytorch 2.14.1",
        "inputs": [{"name": "image", "type": "float", "shape": ["batch", 1, 28, 28]}],
        "outputs": [{"name": "logits", "type": "float", "shape": ["batch", 10]}],
        "dynamic": ["batch"],
        "functions": [],
        "metadata": {},
        "warnings": [],
    }


def test_bytes_are_those_of_all_files(tmp_path: Path) -> None:
    model = load(RESNET)
    written = save(model, tmp_path / "out.onnx", external_data=True)

    assert inspect(model, written[0])["bytes"] == sum(file.stat().st_size for file in written)


def test_types_are_spelled_as_onnx_runtime_does(tmp_path: Path) -> None:
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [None])
    mapping = helper.make_map_type_proto(TensorProto.STRING, number)
    types = {
        "a": helper.make_tensor_type_proto(TensorProto.INT64, [2, "N", None]),
        "b": helper.make_tensor_type_proto(TensorProto.FLOAT16, None),
        "c": helper.make_sequence_type_proto(number),
        "d": helper.make_optional_type_proto(helper.make_sequence_type_proto(number)),
        "e": helper.make_sequence_type_proto(mapping),
    }
    inputs = [helper.make_value_info(name, type_) for name, type_ in types.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}2"]) for name in types]
    outputs = [helper.make_value_info(f"{name}2", type_) for name, type_ in types.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs)

    found = facts(helper.make_model(graph, ir_version=10), tmp_path)

    expected: list[tuple[str, str, list[int | str | None] | None]] = [
        ("a", "int64", [2, "N", None]),
        ("b", "float16", None),
        ("c", "seq(tensor(float))", [None]),
        ("d", "optional(seq(tensor(float)))", [None]),
        ("e", "seq(map(string,tensor(float)))", None),
    ]
    said = [(item["name"], item["type"], item["shape"]) for item in found["inputs"]]
    assert said == expected
    assert found["outputs"][4]["type"] == "seq(map(string,tensor(float)))"


def test_defaults_are_no_inputs_and_odd_models_get_warnings(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "f" : 1], metadata_props: ["author" : "me"]>
    main (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> {
      y = f.twice (a)
      a = Add (x, w)
    }
    <domain: "f", opset_import: ["" : 17]> twice (u) => (v) { v = Add (u, u) }
    """
    proto = onnx.parser.parse_model(text)
    proto.graph.node[1].attribute.append(helper.make_attribute("odd", 1))

    found = facts(proto, tmp_path)

    assert [item["name"] for item in found["inputs"]] == ["x"]
    assert found["functions"] == ["f.twice"]
    assert found["metadata"] == {"author": "me"}
    assert [warning[:20] for warning in found["warnings"]] == [
        "the nodes are not in",
        "1 weights are also i",
        "not quite standard, ",
    ]
    assert "Unrecognized attribute: odd" in found["warnings"][2]


@pytest.mark.parametrize("domain", ["com.microsoft", "com.example"])
def test_operators_of_other_domains_are_no_cause_for_alarm(domain: str, tmp_path: Path) -> None:
    text = f"""
    <ir_version: 8, opset_import: ["" : 17, "{domain}" : 1]>
    main (float[2] x) => (float[2] y) {{ y = {domain}.Gelu (x) }}
    """
    found = facts(text, tmp_path)
    assert found["warnings"] == []
    assert found["operators"] == {f"{domain}.Gelu": 1}


def test_large_weights_are_not_given_to_the_checker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    check: Callable[..., None] = onnx.checker.check_model

    def measured(model: onnx.ModelProto) -> None:
        sizes.append(model.ByteSize())
        check(model)

    monkeypatch.setattr(onnx.checker, "check_model", measured)
    assert inspect(load(RESNET), RESNET)["warnings"] == []
    assert sizes[0] < RESNET.stat().st_size / 10
