"""The start-up benchmark times what it says it does."""

from __future__ import annotations

import pytest

from benchmarks import startup
from benchmarks.__main__ import main


def test_both_are_timed_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.Startup(0.3, 0.2).ratio == pytest.approx(1.5)
    assert main(["startup", "--runs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "onnxpress --help" in printed
    assert printed.rstrip().endswith("times")
