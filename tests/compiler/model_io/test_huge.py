"""A model of 2.5 GB is read, written and optimized in little more memory than its size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from onnx import TensorProto, helper

from onnxpress.compiler.model_io import files_of, load

pytestmark = pytest.mark.huge

SIDE = 25_000
SIZE = 4 * SIDE * SIDE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.5 GB of random weights, written a piece at a time."""
    path = tmp_path_factory.mktemp("huge") / "huge.data"
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(SIDE // 1000):
            rng.normal(size=(1000, SIDE)).astype(np.float32).tofile(file)
    return path


def model_of(data: Path, operator: str) -> Path:
    """``y = relu(W[x])`` or ``y = relu(x @ W + b)``, with something for a pass to do."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[SIDE, SIDE])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": data.name, "offset": "0", "length": str(SIZE)}.items():
        weight.external_data.add(key=key, value=value)
    bias = onnx.numpy_helper.from_array(np.ones(SIDE, np.float32), "b")
    inputs = {
        "Gather": (["w", "x"], helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])),
        "MatMul": (["x", "w"], helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SIDE])),
    }
    names, taken = inputs[operator]
    graph = helper.make_graph(
        [
            helper.make_node(operator, names, ["t"]),
            helper.make_node("Identity", ["t"], ["i"]),
            helper.make_node("Add", ["i", "b"], ["u"]),
            helper.make_node("Relu", ["u"], ["y"]),
        ],
        "g",
        [taken],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", SIDE])],
        [weight, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = data.with_name(f"{operator}.onnx")
    path.write_bytes(model.SerializeToString())
    return path


def peak_of(code: str, *arguments: str) -> float:
    """The peak memory of a Python process that runs ``code``, in units of the weight's size.

    As the process sees it itself: what ``wait4`` tells includes the memory of its parent.
    """
    report = "print('peak', *(line for line in open('/proc/self/status') if 'VmHWM' in line))"
    command = [sys.executable, "-c", f"import sys\n{code}\n{report}", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    kilobytes = int(done.stdout.rpartition("VmHWM:")[2].split()[0])
    return kilobytes * 1024 / SIZE


ROUND_TRIP = """
from onnxpress.compiler.model_io import load, save
save(load(sys.argv[1]), sys.argv[2])
"""
COMMAND_LINE = """
from onnxpress.compiler.cli.main import run
assert run(sys.argv[1:]) == 0
"""


def test_reading_and_writing_takes_little_memory(data: Path) -> None:
    out = data.with_name("out.onnx")

    peak = peak_of(ROUND_TRIP, str(model_of(data, "MatMul")), str(out))

    print(f"round trip: {peak:.2f} times the size")
    assert peak < 1.3
    before, after = (np.memmap(path, np.float32, "r") for path in (data, files_of(out)[1]))
    for start in range(0, SIDE * SIDE, SIDE * 1000):
        part = slice(start, start + SIDE * 1000)
        assert np.array_equal(before[part], after[part])
    remove(out)


@pytest.mark.parametrize("operator", ["Gather", "MatMul"])
def test_optimizing_takes_little_memory(data: Path, operator: str) -> None:
    """Checked and timed, as users have it."""
    source, out = model_of(data, operator), data.with_name("out.onnx")

    command = ("optimize", str(source), "-o", str(out), "-O", "1")
    peak = peak_of(COMMAND_LINE, *command)

    print(f"optimize {operator}: {peak:.2f} times the size")
    assert peak < 2.2
    left = {"Gather": ["Gather", "Add", "Relu"], "MatMul": ["Gemm", "Relu"]}
    assert [node.op_type for node in load(out).graph] == left[operator]
    remove(out)


def remove(model: Path) -> None:
    for file in files_of(model):
        file.unlink()
