"""External data: found, mapped, bounded, and never read from outside the model's folder."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxpress.backends.errors import ModelError
from onnxpress.compiler.model_io import files_of, load, save
from onnxpress.compiler.model_io.external import MappedTensor

VALUES = np.arange(64, dtype=np.float32)


def external(name: str = "w", **entries: Any) -> onnx.TensorProto:
    """A tensor of 64 floats whose data lies elsewhere, ``w.data`` if nothing else is said."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[64])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in ({"location": "w.data"} | entries).items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write(folder: Path, tensor: onnx.TensorProto, data: bytes | None = VALUES.tobytes()) -> Path:
    """A model with ``tensor`` as its only weight, and ``w.data`` beside it."""
    folder.mkdir(exist_ok=True)
    node = onnx.helper.make_node("Neg", [tensor.name], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [64])
    graph = onnx.helper.make_graph([node], "g", [], [output], [tensor])
    imports = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    if data is not None:
        (folder / "w.data").write_bytes(data)
    return path


def weight(model: ir.Model) -> MappedTensor:
    tensor = model.graph.initializers["w"].const_value
    assert isinstance(tensor, MappedTensor)
    return tensor


@pytest.mark.parametrize(
    ("entries", "data"),
    [
        ({}, VALUES.tobytes()),
        ({"offset": 0, "length": 256}, VALUES.tobytes()),
        ({"offset": 16, "length": 256}, bytes(16) + VALUES.tobytes() + b"more"),
        ({"offset": 3}, bytes(3) + VALUES.tobytes()),
        ({"location": "./sub/../w.data"}, VALUES.tobytes()),
    ],
)
def test_it_is_mapped(tmp_path: Path, entries: dict[str, Any], data: bytes) -> None:
    (tmp_path / "sub").mkdir()
    tensor = weight(load(write(tmp_path, external(**entries), data)))

    np.testing.assert_array_equal(tensor.numpy(), VALUES)
    np.testing.assert_array_equal(np.asarray(tensor), VALUES)
    assert tensor.numpy().flags.aligned
    assert tensor.tobytes() == VALUES.tobytes()


def test_reading_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    tensor = weight(load(write(tmp_path, external(), VALUES.tobytes())))

    assert np.shares_memory(tensor.numpy(), tensor.numpy())
    assert not tensor.numpy().flags.owndata
    assert not tensor.numpy().flags.writeable


def test_it_keeps_its_values_when_its_file_is_replaced(tmp_path: Path) -> None:
    model = load(write(tmp_path, external()))
    (tmp_path / "w.data").unlink()
    (tmp_path / "w.data").write_bytes(bytes(256))

    np.testing.assert_array_equal(weight(model).numpy(), VALUES)
    with (tmp_path / "copy").open("wb") as file:
        weight(model).tofile(file)
    assert (tmp_path / "copy").read_bytes() == VALUES.tobytes()


def test_many_threads_may_read_it_first(tmp_path: Path) -> None:
    tensor = weight(load(write(tmp_path, external())))
    sums: list[float] = []
    threads = [
        threading.Thread(target=lambda: sums.append(tensor.numpy().sum())) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sums == [VALUES.sum()] * 16


def test_tensors_of_attributes_and_subgraphs_and_functions_are_mapped(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 21, "f" : 1]>
    main (bool c) => (float[64] y) {
      a = f.get ()
      b = Constant <value: tensor = float[1] {0}> ()
      y = If (c) <then_branch = t () => (float[64] p) <float[1] w = {0}> { p = Add (a, w) },
                  else_branch = e () => (float[64] p) { p = Neg (b) }>
    }
    <domain: "f", opset_import: ["" : 21]>
    get () => (k) { k = Constant <value: tensor = float[1] {0}> () }
    """
    proto = onnx.parser.parse_model(text)
    proto.functions[0].node[0].attribute[0].t.CopyFrom(external())
    proto.graph.node[1].attribute[0].t.CopyFrom(external(offset=256))
    proto.graph.node[2].attribute[0].g.initializer[0].CopyFrom(external(offset=512))
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    (tmp_path / "w.data").write_bytes(b"".join((VALUES + k).tobytes() for k in range(3)))
    before = ort.InferenceSession(path)

    save(load(path), tmp_path / "out.onnx", external_data=False)

    assert [file.name for file in files_of(path)] == ["model.onnx", "w.data"]
    assert len(files_of(tmp_path / "out.onnx")) == 1
    after = ort.InferenceSession(tmp_path / "out.onnx")
    for condition in (True, False):
        feeds = {"c": np.array(condition)}
        np.testing.assert_array_equal(after.run(None, feeds), before.run(None, feeds))


@pytest.mark.parametrize(
    ("entries", "data", "reason"),
    [
        ({}, None, "is missing: there is no file .*w.data"),
        ({"location": "."}, b"", "is missing"),
        ({"location": "no/such.data"}, b"", "is missing"),
        ({"location": ""}, b"", "not in the model's own folder"),
        ({"location": "\0"}, b"", "names no possible file"),
        ({}, b"", "bytes 0 to 256 of .*w.data, which has only 0"),
        ({}, VALUES.tobytes()[:-1], "which has only 255"),
        ({"offset": 4}, VALUES.tobytes(), "bytes 4 to 260"),
        ({"offset": 1 << 62}, VALUES.tobytes(), "which has only 256"),
        ({"offset": -4}, VALUES.tobytes(), "[Nn]egative"),
        ({"length": -1}, VALUES.tobytes(), "[Nn]egative"),
        (
            {"length": 255},
            VALUES.tobytes(),
            "has 255 bytes, but shape .64. of type FLOAT takes 256",
        ),
        ({"offset": "four"}, VALUES.tobytes(), "not well formed"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, entries: dict[str, Any], data: bytes | None, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        load(write(tmp_path, external(**entries), data))


def test_strings_are_refused(tmp_path: Path) -> None:
    tensor = external()
    tensor.data_type = onnx.TensorProto.STRING
    with pytest.raises(ModelError, match="is of strings"):
        load(write(tmp_path, tensor))


@pytest.mark.parametrize("way", ["absolute", "parent", "link", "linked folder"])
def test_other_folders_are_refused(tmp_path: Path, way: str) -> None:
    """Otherwise a model could copy any file of its user into what is made of it."""
    secret = tmp_path / "secret"
    secret.write_bytes(VALUES.tobytes())
    folder = tmp_path / "models"
    folder.mkdir()
    location = {
        "absolute": str(secret),
        "parent": "../secret",
        "link": "link",
        "linked folder": "up/secret",
    }[way]
    (folder / "link").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)

    with pytest.raises(ModelError, match="not in the model's own folder") as caught:
        load(write(folder, external(location=location)))
    assert "copy the data file beside the model" in caught.value.hint


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("w.data")
    os.link(write(tmp_path, external(location="link")).parent / "w.data", tmp_path / "second")

    model = load(tmp_path / "model.onnx")

    np.testing.assert_array_equal(weight(model).numpy(), VALUES)


def test_a_download_cache_of_links_is_read(tmp_path: Path) -> None:
    """Model and data are links from a snapshot's folder to one folder of blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    path = write(blobs, external())
    path.rename(blobs / "aa")
    (blobs / "w.data").rename(blobs / "bb")
    (snapshot / "model.onnx").symlink_to("../../blobs/aa")
    (snapshot / "w.data").symlink_to("../../blobs/bb")

    model = load(snapshot / "model.onnx")

    np.testing.assert_array_equal(weight(model).numpy(), VALUES)
    ort.InferenceSession(snapshot / "model.onnx")
    written = save(model, snapshot / "out.onnx", external_data=True)
    assert [file.parent for file in written] == [snapshot]
