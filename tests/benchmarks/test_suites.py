"""What measures: processes apart, compile times, variants of the shipped nets."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks import compile_time, lossless, shipped
from benchmarks.apart import CallError, apart, row_apart
from benchmarks.compile_time import CompileTimes
from benchmarks.corpus import SHIPPED
from benchmarks.zoo import describe


def fail(message: str) -> Any:
    raise ValueError(message)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- apart -------------------------------------------------------------------------------------


def test_a_call_apart_answers_from_another_process() -> None:
    assert apart(os.getpid, limit=60) != os.getpid()
    assert apart(divmod, 7, 2, limit=60) == (3, 1)


def test_whatever_ends_a_call_apart_is_told() -> None:
    with pytest.raises(CallError, match="ValueError: it is wrong"):
        apart(fail, "it is wrong\nand more", limit=60)
    with pytest.raises(CallError, match="the process ended with code -9"):
        apart(die, limit=60)
    with pytest.raises(CallError, match=r"no answer within 0\.5 s"):
        apart(time.sleep, 60, limit=0.5)


def spawn(path: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    Path(path).write_text(str(child.pid), encoding="ascii")
    time.sleep(60)


def test_a_call_that_takes_too_long_ends_with_what_it_started(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pytest.raises(CallError, match="no answer within"):
        apart(spawn, str(path), limit=15)
    stat = Path(f"/proc/{path.read_text(encoding='ascii')}/stat")
    for _ in range(100):
        if not stat.exists() or stat.read_text(encoding="ascii").split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("what it started still runs")


def test_a_row_apart_tells_its_error() -> None:
    assert row_apart(fail, "it is wrong", limit=60) == {"error": "ValueError: it is wrong"}


def test_a_variant_that_takes_too_long_is_reported() -> None:
    variant = next(shipped.variants())
    assert shipped.measured(variant, 0.01) == {"error": "no answer within 0.01 s"}


def test_levels_are_summed_up_over_what_was_timed() -> None:
    rows: list[dict[str, Any]] = [
        {"model": "a", "nodes": 1, "seconds": {"-O 1": 2.0, "peer": 1.0}, "failed": {}},
        {"model": "b", "error": "no answer within 9 s"},
    ]
    grown = [{"level": 1, "error": "no"}]
    assert compile_time.levels(rows, grown, ["peer"]) == {
        "1": {"ratios": {"peer": pytest.approx(2.0)}, "growth": {"error": "no"}}
    }


# --- compile times -----------------------------------------------------------------------------


def test_a_ratio_is_the_geometric_mean_where_both_finished() -> None:
    rows = [
        CompileTimes("a", 1, {"-O 1": 2.0, "peer": 1.0}),
        CompileTimes("b", 1, {"-O 1": 1.0, "peer": 2.0}),
        CompileTimes("c", 1, {"-O 1": 9.0}, {"peer": "it failed"}),
    ]
    assert compile_time.ratio(rows, 1, "peer") == pytest.approx(1.0)
    assert compile_time.ratio(rows, 1, "nobody") is None
    assert compile_time.ratio(rows, 2, "peer") is None


def test_a_peer_that_fails_is_a_result_and_ours_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = SHIPPED / "mnist_cnn_0.onnx"
    monkeypatch.setitem(compile_time.PEERS, "peer", lambda _: fail("not this one"))
    monkeypatch.setattr(compile_time, "onnxpress_at", lambda *_: None)
    found = compile_time.measure("cnn", path, ["peer"], runs=1)
    assert found.failed == {"peer": "ValueError: not this one"}
    assert found.seconds.keys() == {"-O 1", "-O 2"}
    monkeypatch.setattr(compile_time, "onnxpress_at", lambda *_: fail("ours"))
    with pytest.raises(ValueError, match="ours"):
        compile_time.measure("cnn", path, [], runs=1)


@pytest.mark.parametrize("nodes", [10, 200])
def test_the_synthetic_graph_has_the_nodes_asked_for_and_runs(nodes: int) -> None:
    proto = compile_time.synthetic(nodes)
    onnx.checker.check_model(proto, full_check=True)
    assert len(proto.graph.node) == nodes + 1
    session = ort.InferenceSession(proto.SerializeToString())
    (y,) = session.run(None, {"x": np.ones((2, 4, 8, 8), np.float32)})
    assert y.shape == (2, 4, 8, 8)


def test_level_1_leaves_two_nodes_a_block_of_the_synthetic_graph() -> None:
    found = compile_time.onnxpress_at(1, compile_time.synthetic(40))
    assert isinstance(found, onnx.ModelProto)
    operators = [node.op_type for node in found.graph.node]
    assert operators.count("Conv") == operators.count("Relu") == 4
    assert not {"BatchNormalization", "Identity", "Dropout"} & set(operators)


def test_growth_is_measured_against_linear() -> None:
    growth = compile_time.Growth((1_000, 20_000), (0.1, 2.4))
    assert growth.over_linear == pytest.approx(1.2)


# --- shipped nets ------------------------------------------------------------------------------


def test_every_family_is_measured_on_every_net() -> None:
    variants = list(shipped.variants())
    assert len(variants) == 6 * 4 + 2
    commands = {variant.command for variant in variants}
    assert commands == {"optimize", "quantize", "prune", "merge"}


def test_a_variant_is_a_command_as_one_types_it() -> None:
    by_name = {(variant.net, variant.name): variant for variant in shipped.variants()}
    assert " ".join(by_name["mnist_resnet", "half the MACs, int8"].arguments("out.onnx")) == (
        "onnxpress optimize benchmarks/models/mnist_resnet.onnx -o out.onnx --macs 0.5 "
        "--quantize int8 --data benchmarks/data/mnist_calibration_nchw.npz"
    )
    assert " ".join(by_name["four CNNs", "merged by mean"].arguments("out.onnx")).endswith(
        "benchmarks/models/mnist_cnn_3.onnx -o out.onnx"
    )


@pytest.mark.parametrize("net", sorted(describe.NETWORKS))
def test_the_data_of_a_variant_is_its_nets(net: str) -> None:
    path = shipped.calibration(net)
    session = ort.InferenceSession(SHIPPED / f"{net}.onnx")
    with np.load(path) as data:
        session.run(None, {name: data[name][:1] for name in data.files})


def test_merging_is_timed_against_running_apart(tmp_path: Path) -> None:
    nets = shipped.CNNS[:2]
    single = SHIPPED / "mnist_cnn_0.onnx"
    latency = shipped.against_apart(nets, single, seconds=0.2)
    assert latency["threads"] == 1
    assert latency["speedup"] > 1.3


# --- lossless ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_is_rewritten_checked_and_timed_in_a_process_of_its_own() -> None:
    row = lossless.measure("mnist-resnet", 1, limit=300)
    assert (row["model"], row["level"], row["verified"]) == ("mnist-resnet", 1, "ok")
    assert row["nodes"][1] < row["nodes"][0]
    assert row["quarantined"] == row["withdrawn"] == {}
    assert row["inputs"] == 8
    assert row["latency"]["status"] == "measured"
    assert row["latency"]["threads"] == 1


def test_a_model_that_takes_too_long_is_reported() -> None:
    row = lossless.measure("mnist-resnet", 1, limit=0.01)
    assert row == {"model": "mnist-resnet", "level": 1, "error": "no answer within 0.01 s"}
