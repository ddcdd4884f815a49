"""The suite on pruning: cases, peers that fail, rows that are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import pruning, pruning_peers
from benchmarks.pruning_memory import Noisy
from benchmarks.pruning_real import keys, rank_correlation
from onnxpress.backends.errors import UsageError


def test_each_net_is_pruned_by_each_method_to_each_fraction() -> None:
    cases = list(pruning.cases())

    assert len({tuple(case.key.values()) for case in cases}) == len(cases)
    assert pruning.Case("mnist_cnn_0", 0.25, "l1").arguments("out.onnx") == [
        *("onnxpress", "prune", "benchmarks/models/mnist_cnn_0.onnx", "-o", "out.onnx"),
        *("--macs", "0.25", "--criterion", "l1"),
        *("--data", "benchmarks/data/mnist_calibration_nhwc.npz"),
    ]


def test_a_peer_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pruning_peers.PEERS, "onnxsim", fails)

    row = pruning.measure(pruning.Case("mnist_cnn_0", 0.5, "onnxsim"), limit=60)

    assert row == {
        "net": "mnist_cnn_0",
        "asked": 0.5,
        "method": "onnxsim",
        "error": "ValueError: it cannot",
    }


def fails(net: str, macs: float, output: Path) -> None:
    raise ValueError("it cannot")


def test_unknown_methods_are_refused() -> None:
    from benchmarks.pruning_suite import pruning_suite

    with pytest.raises(UsageError, match="there is no 'l7' here"):
        pruning_suite(methods="l7")


def test_samples_to_weigh_memory_with_are_made_as_they_are_asked_for() -> None:
    batches = list(Noisy(600).batches(256))

    assert [len(one["image"]) for one in batches] == [256, 256, 88]
    assert batches[0]["image"].dtype == np.float32
    assert [one["samples"] for one in keys("memory")] == [512, 4096]


def test_rank_correlation_is_that_of_the_order() -> None:
    assert rank_correlation(np.array([1, 5, 9]), np.array([0.1, 0.2, 40])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 5, 9]), np.array([3, 2, 1])) == pytest.approx(-1)
