"""What the command-line tests share: the shipped models and a runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxpress.compiler.cli.main import run
from tests.compiler.cli.runner import ROOT, Command, Done


@pytest.fixture
def onnxpress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Run a command in an empty folder, without a terminal, and give back what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Done:
        code = run([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return Done(code, printed.out, printed.err)

    return call


@pytest.fixture
def models() -> Path:
    return ROOT / "benchmarks" / "models"


@pytest.fixture
def samples() -> Path:
    return ROOT / "benchmarks" / "data"
