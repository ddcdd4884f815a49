"""Random models from the command line: what is counted, found, saved, and gone on with."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from benchmarks import fuzz
from benchmarks.__main__ import main
from onnxpress.passes.base import Context, Pass, Result
from onnxpress.passes.graph import nodes_of
from tests.graphs import plan_of

WRONG = f"{__name__}:NegateTanh"


@dataclass(frozen=True)
class NegateTanh(Pass):
    """Wrong wherever there is a Tanh."""

    name: ClassVar[str] = "negate-tanh"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        for node in nodes_of(model):
            if node.op_type == "Tanh":
                node.op_type = "Sigmoid"
                result.rewrote(node)
        return result


@dataclass(frozen=True)
class Die(Pass):
    """Takes the process with it."""

    name: ClassVar[str] = "die"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        os.kill(os.getpid(), signal.SIGKILL)
        return Result(model)


def outcomes(state: fuzz.Fuzzing, cases: int, folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    fuzz.fuzz(state, cases, folder, found.append)
    return found


def operators_of(number: int) -> set[str]:
    model = plan_of(fuzz.case_seed(0, number)).case().model
    return {node.op_type for node in model.graph.node}


def test_a_seed_is_the_same_case_everywhere() -> None:
    first, second = (plan_of(fuzz.case_seed(3, 5)).case().model for _ in range(2))
    assert first == second
    assert plan_of(fuzz.case_seed(3, 6)).case().model != first
    assert fuzz.case_seed(0, 5) != fuzz.case_seed(3, 5)


def test_cases_are_counted_and_a_run_goes_on(tmp_path: Path) -> None:
    state = fuzz.start(tmp_path, 1, ["1"], resume=True)
    assert len(outcomes(state, 3, tmp_path)) == 3
    again = fuzz.start(tmp_path, 1, ["1"], resume=True)
    assert (again.cases, again.findings, again.operators) == (3, [], state.operators)
    assert len(outcomes(again, 5, tmp_path)) == 2
    assert fuzz.start(tmp_path, 2, ["1"], resume=True).cases == 0
    assert fuzz.start(tmp_path, 1, ["1"], resume=False).cases == 0


def test_a_wrong_pass_is_found_and_cut_down(tmp_path: Path) -> None:
    number = next(number for number in range(100) if "Tanh" in operators_of(number))
    outcome = fuzz.run_case(0, number, [f"cleanup,{WRONG}"], tmp_path)
    (finding,) = outcome["findings"]
    assert outcome["status"] == "found"
    assert finding["what"].startswith(WRONG)
    base = Path(finding["saved"])
    model = onnx.load(base.with_suffix(".onnx"))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["Tanh"]
    with np.load(base.with_suffix(".npz")) as feeds:
        assert set(feeds.files) == {value.name for value in model.graph.input}
    assert WRONG in base.with_suffix(".txt").read_text()


def test_a_crash_is_a_finding_and_the_rest_goes_on(tmp_path: Path) -> None:
    state = fuzz.start(tmp_path, 0, [f"{__name__}:Die"], resume=False)
    first, second = outcomes(state, 2, tmp_path)
    assert first["findings"][0]["what"] == "the process ended with code -9"
    assert second["status"] == "crashed"
    assert (state.cases, len(state.findings)) == (2, 2)


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fuzz", "--cases", "2", "--pipeline", "shuffled", "--folder", str(tmp_path)]
    assert main(arguments) == 0
    assert "2 cases of seed 0, each through shuffled: 0 findings" in capsys.readouterr().out
