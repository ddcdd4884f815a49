"""Reports say in every format what the run found, and nothing that it did not."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onnxpress.backends.errors import OutputError, UsageError
from onnxpress.compiler.manager import PassRecord
from onnxpress.compiler.report import Report
from onnxpress.compiler.write_report import write_report

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
                bytes=(1000, 900),
                details={
                    "evaluated": 2,
                    "ranges": {f"value<{n}>": [0.0, n / 3] for n in range(150)},
                    "empty": {},
                },
            ),
            PassRecord(
                "wrong",
                {},
                status="quarantined",
                reason="the answers differ",
                reproduction="repro/03-wrong.onnx",
            ),
        ],
        verified={
            "status": "ok",
            "reason": "",
            "cases": 3,
            "max_abs": 1e-6,
            "sqnr_db": 130.0,
            "outputs": {
                "y": {"status": "ok", "reason": "", "max_abs": 1e-6, "top1_agreement": 0.975},
                "z": {"status": "not-comparable", "reason": "it is random", "max_abs": None},
            },
        },
        latency={
            "status": "measured",
            "before": LATENCY,
            "after": {**LATENCY, "median_ms": 1.0, "p10_ms": 0.9, "p90_ms": 1.2},
            "speedup": 2.0,
            "ci95": [1.9, 2.1],
            "verdict": "faster",
            "threads": 1,
        },
        search={"status": "not-measured", "reason": "off"},
        session={"status": "not-measured", "reason": "off"},
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
    assert "faster: 2.000 ms → 1.000 ms, 2.00x (95% interval 1.90 to 2.10), 1 thread" in text
    assert "- wrong was undone" in text


class Outline(HTMLParser):
    """Collects tags and texts, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.classes[dict(attrs).get("class") or ""] += 1
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
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == 0
    assert page.tags["b"] == 4  # the cards, and not the name
    assert all(address.startswith("#") for address in page.attributes)
    text = path.read_text(encoding="utf-8")
    known = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # namespaces
    assert set(re.findall(r"https?://[^\"'<\s]+", text)) <= known
    for text in ("out<b>.onnx", "it is <odd> | strange", "Over 3 runs", "Some CPU", "97.5%"):
        assert text in page.text
    for text in ("2.00x, faster", "95% interval 1.90 to 2.10", "-10.0%", "not known"):
        assert text in page.text
    assert page.tags["details"] == 2
    for text in ("2. fold-batch-norm in detail", "evaluated", "value<99>", "and 50 more"):
        assert text in page.text
    assert "value<100>" not in page.text
    for text in ("quarantined: the answers differ", "repro/03-wrong.onnx", "it is random"):
        assert text in page.text
    assert page.classes["idle"] == 1


def test_html_without_matplotlib_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = tmp_path / "r.html"
    write_report(report(), path)
    text = path.read_text(encoding="utf-8")
    assert "<svg" not in text
    assert "pip install onnxpress[plots]" in text


def test_what_was_not_measured_is_called_so(tmp_path: Path) -> None:
    made = report()
    made.latency = {"status": "not-measured", "reason": "off"}
    made.operators = []
    write_report(made, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<svg" not in text
    assert '<b class="note">not measured</b><small>off</small>' in text


@pytest.mark.parametrize(
    ("verdict", "style"),
    [("faster", "good"), ("slower", "bad"), ("no significant difference", "note")],
)
def test_the_page_shows_at_once_how_it_went(tmp_path: Path, verdict: str, style: str) -> None:
    made = report()
    made.latency |= {"verdict": verdict, "prepacking": False, "threads": 0}
    made.macs, made.sizes, made.bytes = [100, 150], {"batch": 2}, [1000, 1000]
    made.verified = {"status": "not-run", "reason": "verification was turned off"}
    write_report(made, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f'<b class="{style}">2.00x, {verdict}</b>' in text
    assert "default threads, weights not prepacked" in text
    assert '<b class="note">+50.0%</b><small>100 → 150</small>' in text
    assert "(MACs) at batch=2" in text
    assert '<b class="">the same</b>' in text
    assert '<b class="note">not checked</b><small>verification was turned off</small>' in text
    assert "<h2>Answers</h2>" not in text


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.json, \.md, \.html, not r\.pdf"):
        write_report(report(), tmp_path / "r.pdf")
    with pytest.raises(OutputError, match="cannot write the report"):
        write_report(report(), tmp_path / "no" / "r.md")
