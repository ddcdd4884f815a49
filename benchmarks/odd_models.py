"""Models that are damaged, hostile or merely odd, each written to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import onnx

from .shipped import path_of

Writer: TypeAlias = Callable[[Path], None]

FLIPPED: Final = 12
"""How many files with flipped bytes there are, each of another seed."""


DEPTH: Final = 20


def _text(text: str, path: Path) -> None:
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())


def _bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _truncated(path: Path) -> None:
    whole = path_of("mnist_cnn_0").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _flipped(seed: int, path: Path) -> None:
    """Bytes of the graph, which stands before and after the weights, are changed at random."""
    rng = np.random.default_rng(seed)
    content = bytearray(path_of("mnist_cnn_0").read_bytes())
    for at in rng.integers(0, 4000, 2):
        content[at] = int(rng.integers(256))
    path.write_bytes(bytes(content))


def _weight_of(location: str, path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) '
        "<float[4] w = {1, 2, 3, 4}> { y = Mul (x, w) }"
    )
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())


def _short_weight(path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) '
        "<float[4] w = {1, 2, 3, 4}> { y = Mul (x, w) }"
    )
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.raw_data = b"\0" * 12
    path.write_bytes(model.SerializeToString())


def _weights_not_finite(path: Path) -> None:
    model = onnx.load(path_of("mnist_cnn_0"))
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if array.dtype == np.float32 and array.ndim == 4:
            array.reshape(-1)[0] = np.nan
            array.reshape(-1)[1] = np.inf
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    path.write_bytes(model.SerializeToString())


def _long_chain(path: Path) -> None:
    nodes = [onnx.helper.make_node("Neg", [f"v{at}"], [f"v{at + 1}"]) for at in range(20_000)]
    _write(nodes, "v0", "v20000", path)


def _deep(path: Path) -> None:
    """An If in an If, as often as protobuf reads."""
    kind = onnx.helper.make_tensor_value_info
    body = [onnx.helper.make_node("Neg", ["x"], ["o0"])]
    for depth in range(DEPTH):
        graph = onnx.helper.make_graph(
            body, f"g{depth}", [], [kind(f"o{depth}", onnx.TensorProto.FLOAT, ["n"])]
        )
        other = onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], [f"e{depth}"])],
            f"e{depth}",
            [],
            [kind(f"e{depth}", onnx.TensorProto.FLOAT, ["n"])],
        )
        body = [
            onnx.helper.make_node(
                "If", ["c"], [f"o{depth + 1}"], then_branch=graph, else_branch=other
            )
        ]
    head = [
        onnx.helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        onnx.helper.make_node("Greater", ["s", "zero"], ["c"]),
    ]
    zero = onnx.numpy_helper.from_array(np.array(0, np.float32), "zero")
    _write([*head, *body], "x", f"o{DEPTH}", path, zero)


def _write(
    nodes: list[onnx.NodeProto],
    source: str,
    result: str,
    path: Path,
    *weights: onnx.TensorProto,
) -> None:
    kind = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "odd",
        [kind(source, onnx.TensorProto.FLOAT, ["n"])],
        [kind(result, onnx.TensorProto.FLOAT, ["n"])],
        weights,
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    path.write_bytes(model.SerializeToString())


_HEAD = '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> '

ODD: Mapping[str, Writer] = {
    "empty": partial(_bytes, b""),
    "not a model": partial(_bytes, b"PK\x03\x04" + b"something else" * 100),
    "text": partial(_bytes, b"This is no model at all.\n" * 40),
    "truncated": _truncated,
    "data missing": partial(_weight_of, "nowhere.bin"),
    "data elsewhere": partial(_weight_of, "../../../../../../etc/passwd"),
    "data too short": _short_weight,
    "weights not finite": _weights_not_finite,
    "cycle": partial(
        _text, _HEAD + "g (float[n] x) => (float[n] y) { a = Add (x, b) b = Neg (a) y = Neg (b) }"
    ),
    "name used twice": partial(
        _text, _HEAD + "g (float[n] x) => (float[n] y) { a = Neg (x) a = Abs (x) y = Neg (a) }"
    ),
    "name of nothing": partial(
        _text, _HEAD + "g (float[n] x) => (float[n] y) { y = Add (x, nothing) }"
    ),
    "unknown operator": partial(
        _text, _HEAD + "g (float[n] x) => (float[n] y) { a = own.Thing (x) y = Relu (a) }"
    ),
    "opset of the future": partial(
        _text,
        '<ir_version: 8, opset_import: ["" : 99]> g (float[n] x) => (float[n] y) { y = Relu (x) }',
    ),
    "function that calls itself": partial(
        _text,
        _HEAD + "g (float[n] x) => (float[n] y) { y = own.f (x) } "
        '<domain: "own", opset_import: ["" : 17, "own" : 1]> f (a) => (b) { b = own.f (a) }',
    ),
    "a constant of a terabyte": partial(
        _text,
        _HEAD + "g (float[1] x) => (float[m] y) <int64[1] s = {274877906944}> "
        "{ c = ConstantOfShape (s) y = Add (x, c) }",
    ),
    "a loop of constants without end": partial(
        _text,
        _HEAD + "g (float[n] x) => (float[n] y) "
        "<int64 m = {4611686018427387904}, bool c = {1}, float z = {0}> {"
        "l = Loop (m, c, z) <body = b (int64 i, bool k, float v) => (bool o, float w) "
        "<float one = {1}> { o = Identity (k) w = Add (v, one) }> y = Add (x, l) }",
    ),
    "no nodes": partial(_text, _HEAD + "g (float[n] x) => (float[n] x) { }"),
    "an output twice": partial(
        _text, _HEAD + "g (float[n] x) => (float[n] y, float[n] y) { y = Neg (x) }"
    ),
    "an output that is constant": partial(
        _text, _HEAD + "g (float[n] x) => (float y, float[n] z) "
        "<float one = {1}> { y = Neg (one) z = Neg (x) }",
    ),
    "an empty tensor": partial(
        _text, _HEAD + "g (float[n] x) => (float[n] y) "
        "<float[0] e = {}> { y = Concat <axis = 0> (x, e) }",
    ),
    "20,000 nodes in a row": _long_chain,
    "branches in branches": _deep,
    **{f"flipped bytes {seed}": partial(_flipped, seed) for seed in range(FLIPPED)},
}  # fmt: skip
