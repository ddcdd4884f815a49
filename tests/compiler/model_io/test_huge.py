"""A model of 2.5 GB is read and written in little more memory than its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytestmark = pytest.mark.huge

ROWS, COLUMNS = 625_000, 1000
SIZE = 4 * ROWS * COLUMNS


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``y = relu(x[indices]) @ w`` with a table of 2.5 GB, written a piece at a time."""
    folder = tmp_path_factory.mktemp("huge")
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[ROWS, COLUMNS])
    table.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "huge.data", "offset": "0", "length": str(SIZE)}.items():
        table.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "indices"], ["rows"]),
            helper.make_node("Relu", ["rows"], ["kept"]),
            helper.make_node("MatMul", ["kept", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("indices", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [table, onnx.numpy_helper.from_array(np.ones((COLUMNS, 4), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "huge.onnx").write_bytes(model.SerializeToString())
    rng = np.random.default_rng(0)
    with (folder / "huge.data").open("wb") as file:
        for _ in range(ROWS // 25_000):
            rng.normal(size=(25_000, COLUMNS)).astype(np.float32).tofile(file)
    return folder / "huge.onnx"


MEASURED = """
import json, resource, sys
from onnxpress.compiler.model_io import files_of, load, save

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
written = save(load(sys.argv[1]), sys.argv[2])
print(json.dumps({"peak": peak() - before, "files": [file.name for file in written]}))
"""


def test_reading_and_writing_takes_little_memory(huge: Path) -> None:
    out = huge.parent / "out.onnx"
    command = [sys.executable, "-c", MEASURED, str(huge), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)

    print(f"peak {found['peak'] / SIZE:.2f} times the size")
    assert found["files"] == ["out.onnx", "out.onnx.data"]
    assert found["peak"] < 1.3 * SIZE
    before, after = huge.parent / "huge.data", huge.parent / "out.onnx.data"
    table = [np.memmap(path, np.float32, "r", shape=(ROWS, COLUMNS)) for path in (before, after)]
    for start in range(0, ROWS, 25_000):
        assert np.array_equal(*(part[start : start + 25_000] for part in table))
    out.unlink()
    after.unlink()
