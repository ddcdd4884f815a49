"""What the documentation says of ONNX Runtime is what the installed version does."""

from __future__ import annotations

import platform
import re
from collections import Counter
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort
import pytest

from benchmarks import layout
from benchmarks.__main__ import main
from onnxpress.passes.analysis.blocked_layout import BlockedLayout
from onnxpress.passes.analysis.macs import with_fixed_shapes

READ_FROM = (1, 32)
"""The version of ONNX Runtime that the page's tables were read from."""

here = pytest.mark.skipif(
    platform.machine() != "x86_64" or tuple(map(int, ort.__version__.split(".")[:2])) < READ_FROM,
    reason="the page tells of onnxruntime 1.32 and later on x86-64",
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "onnxruntime-cpu.md"


def told(head: str) -> dict[str, str]:
    """The rows of the table of the page that begins with ``head``."""
    text = PAGE.read_text(encoding="utf-8")
    _, _, rest = text.partition(f"| {head} |")
    table, _, _ = rest.partition("\n\n")
    return dict(
        re.findall(r"^\| (.+?) \| (.+?) \|$", table.partition("|---|---|")[2], re.MULTILINE)
    )


def test_the_page_tells_of_everything_that_is_probed() -> None:
    assert told("between two convolutions").keys() == layout.BETWEEN.keys()
    assert told("pattern").keys() == layout.FUSIONS.keys()


@here
@pytest.mark.parametrize("name", list(layout.BETWEEN))
def test_an_operator_between_convolutions_does_as_the_page_says(name: str) -> None:
    assert layout.verdict(name) == told("between two convolutions")[name]


@here
@pytest.mark.parametrize("name", list(layout.BETWEEN))
def test_the_cost_model_knows_how_often_the_layout_changes(name: str) -> None:
    proto = layout.model(layout.BETWEEN[name])
    found = layout.operators(layout.optimized(proto))
    graph = with_fixed_shapes(ir.from_proto(proto)).graph
    told = BlockedLayout(graph, frozenset())
    assert told.reorders == found["ReorderInput"] + found["ReorderOutput"]


@here
@pytest.mark.parametrize("name", list(layout.FUSIONS))
def test_a_pattern_becomes_what_the_page_says(name: str) -> None:
    assert ", ".join(layout.fused(name)) == told("pattern")[name]


def test_the_defaults_of_a_session_are_as_the_page_says() -> None:
    options = ort.SessionOptions()
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert options.intra_op_num_threads == 0
    assert options.enable_cpu_mem_arena
    assert options.enable_mem_pattern


@here
def test_each_level_adds_what_the_page_says() -> None:
    model = layout.model(layout.BETWEEN["Relu"])
    kinds = {
        level: layout.operators(layout.optimized(model, level))
        for level in ("BASIC", "EXTENDED", "LAYOUT", "ALL")
    }
    assert kinds["BASIC"] == Counter(Conv=2, Relu=1)
    assert kinds["EXTENDED"] == Counter(Conv=1, FusedConv=1)
    assert kinds["LAYOUT"] == kinds["ALL"] == Counter(Conv=2, ReorderInput=1, ReorderOutput=1)


@here
def test_what_is_told_apart_is_told_by_the_operators() -> None:
    found = layout.operators(layout.optimized(layout.model(layout.BETWEEN["Elu"])))
    assert found == Counter(ReorderInput=2, ReorderOutput=2, Conv=2, Elu=1)


def test_the_command_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layout"]) == 0
    out = capsys.readouterr().out
    assert "between two convolutions" in out
    assert f"onnxruntime {ort.__version__}" in out
