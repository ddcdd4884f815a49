"""Predictions are held against what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import forecast
from benchmarks.__main__ import main


def test_ranks_are_compared() -> None:
    assert forecast.rank_correlation([1, 2, 3], [10, 200, 201]) == pytest.approx(1)
    assert forecast.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Equal values share the mean of their ranks, as in scipy.stats.spearmanr.
    assert forecast.rank_correlation([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.94868, abs=1e-5)
    rng = np.random.default_rng(0)
    assert abs(forecast.rank_correlation(rng.normal(size=999), rng.normal(size=999))) < 0.1


def test_a_table_of_both_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["mnist-cnn-0", "mnist-resnet", "mnist-mobilenet"]
    timed = {"status": "measured", "before": {"median_ms": 3.0}, "after": {"median_ms": 2.0}}
    rows = [{"model": name, "level": 2, "latency": timed} for name in names[:2]]
    rows.append({"model": names[2], "level": 2, "error": "no answer within 1 s"})
    (tmp_path / "lossless.json").write_text(json.dumps({"suite": "lossless", "rows": rows}))
    assert main(["forecast", "--models", ",".join(names), "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "mnist-mobilenet: not measured" in printed.out + printed.err
    assert printed.out.count("1.50x") == 2


def test_rank_correlations_are_told_from_three_models_on() -> None:
    pairs = [([2.0, 1.0], [20.0, 11.0]), ([3.0, 1.0], [35.0, 10.0]), ([4.0, 4.0], [50.0, 50.0])]
    told = "rank correlation over 3 models: 1.00 of latencies, 1.00 of speedups"
    assert forecast.summary(pairs) == told
    assert forecast.cells([2.0, 1.0], [None, None])[-1] == "not predicted"
