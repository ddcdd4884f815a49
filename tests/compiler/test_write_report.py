"""Reports say in every format what the run found, and nothing that it did not."""

from __future__ import annotations

import json
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onnxpress.backends.errors import OutputError, UsageError
from onnxpress.compiler.manager import PassRecord
from onnxpress.compiler.report import Report
from onnxpress.compiler.write_report import latency_text, verified_text, write_report

LATENCY = {"median_ms": 2.0, "p10_ms": 1.9, "p90_ms": 2.2, "p99_ms": 2.5, "runs": 100}


def report() -> Report:
    return Report(
        input="in.onnx",
        output="out<b>.onnx",
        target="cpu",
        pipeline="cleanup,fold-batch-norm",
        nodes=[10, 8],
        bytes=[1000, 900],
        macs=[None, None],
        parameters=[250, 250],
        passes=[
            PassRecord("cleanup", {"names": ("a", "b")}),
            PassRecord(
                "fold-batch-norm",
                {},
                status="ok",
                rewritten=2,
                declined=Counter({"it is <odd> | strange": 3}),
                nodes=(10, 8),
            ),
            PassRecord("wrong", {}, status="quarantined", reason="the answers differ"),
        ],
        verified={"status": "ok", "reason": "", "cases": 3, "max_abs": 1e-6, "sqnr_db": 130.0},
        latency={
            "status": "measured",
            "before": LATENCY,
            "after": {**LATENCY, "median_ms": 1.0, "p10_ms": 0.9, "p90_ms": 1.2},
            "speedup": 2.0,
            "ci95": [1.9, 2.1],
            "verdict": "faster",
            "threads": 1,
        },
        seconds=1.5,
        environment={"cpu": {"model": "Some CPU"}, "python": "3.11"},
        operators=[{"Conv": 5, "Relu": 5}, {"Conv": 5, "Relu": 3}],
        warnings=["wrong was undone"],
    )


def test_json_has_the_promised_keys(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    made = report()
    made.verified["sqnr_db"] = float("inf")
    write_report(made, path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {
        *("input", "output", "target", "nodes", "bytes", "macs", "parameters"),
        *("passes", "verified", "seconds", "environment"),
    } <= found.keys()
    assert found["nodes"] == [10, 8]
    assert found["verified"]["sqnr_db"] is None
    cleanup, fold, wrong = found["passes"]
    assert cleanup["options"] == {"names": ["a", "b"]}
    assert (cleanup["modified"], cleanup["status"]) == (False, "no-change")
    assert fold["modified"] is True
    assert fold["declined"] == {"it is <odd> | strange": 3}
    assert wrong["reason"] == "the answers differ"


def test_markdown_tables_hold_together(tmp_path: Path) -> None:
    path = tmp_path / "r.md"
    write_report(report(), path)
    text = path.read_text(encoding="utf-8")
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        widths = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(widths) == 1
    assert "quarantined: the answers differ" in text
    assert "2.00x (95% interval 1.90 to 2.10): faster" in text
    assert "- wrong was undone" in text


class Outline(HTMLParser):
    """Collects tags and texts, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "path", "use", "rect", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"path", "use", "rect"}:
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_one_page_that_loads_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "r.html"
    write_report(report(), path)
    page = Outline()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert page.tags["svg"] == 2
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == page.tags["b"] == 0
    assert all(address.startswith("#") for address in page.attributes)
    for text in ("out<b>.onnx", "3 times: it is <odd> | strange", "agree (3 runs", "Some CPU"):
        assert text in page.text


def test_html_without_matplotlib_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = tmp_path / "r.html"
    write_report(report(), path)
    text = path.read_text(encoding="utf-8")
    assert "<svg" not in text
    assert "pip install onnxpress[plots]" in text


@pytest.mark.parametrize(
    ("verified", "text"),
    [
        ({"status": "not-run", "reason": "no operator"}, "not checked: no operator"),
        ({"status": "not-comparable", "reason": "random"}, "not comparable: random"),
        ({"status": "ok", "cases": 2, "max_abs": 0.5}, "agree (2 runs, largest difference 0.5)"),
        ({"status": "ok", "exact": False, "sqnr_db": 30.0}, "within the contract (SQNR 30.0 dB)"),
        ({"status": "failed", "reason": "y is off"}, "differ: y is off"),
    ],
)
def test_what_was_not_checked_is_never_called_agreement(
    verified: dict[str, object], text: str
) -> None:
    assert verified_text(verified) == text


def test_what_was_not_measured_is_called_so(tmp_path: Path) -> None:
    assert latency_text({"status": "not-measured", "reason": "off"}) == "not measured: off"
    made = report()
    made.latency = {"status": "not-measured", "reason": "off"}
    made.operators = []
    write_report(made, tmp_path / "r.html")
    assert "<svg" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.json, \.md, \.html, not r\.pdf"):
        write_report(report(), tmp_path / "r.pdf")
    with pytest.raises(OutputError, match="cannot write the report"):
        write_report(report(), tmp_path / "no" / "r.md")


def test_a_session_that_is_not_the_default_is_said() -> None:
    text = latency_text({**report().latency, "prepacking": False})
    assert text.endswith("threads: 1; weights not prepacked, to save memory")
