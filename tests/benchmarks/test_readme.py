"""What the READMEs claim is what the result files hold, and these say where it was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import readme, shipped, store, tables
from benchmarks.corpus import CorpusError, load_corpus

LATENCY = {
    "status": "measured",
    "before": {"median_ms": 2.0},
    "after": {"median_ms": 1.0},
    "speedup": 2.0,
    "ci95": [1.9, 2.1],
    "verdict": "faster",
    "threads": 1,
}
SLOWER = LATENCY | {"speedup": 0.5, "ci95": [0.4, 0.6], "verdict": "slower"}
MACHINE = {
    "suite": "sample",
    "date": "2026-01-01",
    "environment": {
        "cpu": {
            "model": "A CPU",
            "microarchitecture": "zen3",
            "quota": None,
            "threads": 2,
            "features": ["avx2", "avx512_vnni"],
        },
        "python": "3.11.7",
        "packages": {"onnxruntime": "1", "onnx": "2", "onnxsim": "3", "onnxslim": "4"},
    },
}
LOSSLESS = MACHINE | {
    "rows": [
        {"model": "a", "level": 1, "nodes": [10, 5], "latency": LATENCY, "verified": "ok",
         "reason": "", "quarantined": {}},
        {"model": "b", "level": 1, "nodes": [1000, 900], "latency": SLOWER, "verified": "ok",
         "reason": "", "quarantined": {"cleanup": "it was wrong"}},
        {"model": "c", "level": 1, "error": "no answer within 900 s"},
    ],
    "peers": [
        {"model": "a", "peer": "onnxsim", "nodes": 4, "answers": "ok", "reason": "", "seconds": 1},
        {"model": "a", "peer": "onnxslim", "nodes": 3, "answers": "failed", "reason": "no",
         "seconds": 1},
        {"model": "b", "peer": "onnxsim", "failed": "RuntimeError: no"},
        {"model": "b", "peer": "onnxslim", "nodes": 950, "answers": "ok", "reason": "",
         "seconds": 1},
    ],
}  # fmt: skip
SHIPPED = MACHINE | {
    "rows": [
        {"net": "mnist_cnn_0", "variant": "int8", "latency": SLOWER, "bytes": [492000, 130000],
         "macs": [2500000, 2500000], "top1": [0.98, 0.97], "verified": "ok"},
    ]
}  # fmt: skip
COMPILING = MACHINE | {
    "levels": {
        "1": {
            "ratios": {"onnxsim": 1.25},
            "growth": {"nodes": [1000, 20000], "seconds": [0.5, 11.0], "over_linear": 1.1},
        }
    },
    "rows": [
        {"model": "a", "nodes": 10, "seconds": {"-O 1": 0.5, "onnxsim": 0.4}, "failed": {}},
        {"model": "b", "nodes": 10, "seconds": {"-O 1": 0.1}, "failed": {"onnxsim": "no"}},
    ],
}
TRANSCRIPT = MACHINE | {"command": "onnxpress --version", "output": ["onnxpress 0.1.0"]}
MERGED = MACHINE | {
    "equalities": [
        {"case": "two", "combine": "mean", "passes": "", "outputs": 1, "max_abs": 0, "equal": True},
        {"case": "two", "combine": "vote", "passes": "", "error": "no answer within 900 s"},
    ],
    "accuracy": [{"model": "mean", "right": 9, "of": 10, "top1": 0.9}],
    "bytes": [{"case": "two", "members": 2000, "merged": 1000}, {"case": "b", "error": "no"}],
    "speed": [],
}
RESULTS: dict[str, dict[str, Any]] = {
    "lossless": LOSSLESS, "shipped": SHIPPED, "compile-time": COMPILING, "transcript": TRANSCRIPT,
    "ensembles": MERGED,
}  # fmt: skip


def fill(part: str) -> str:
    page = f"before\n<!-- measured: {part} -->\nold\n<!-- end -->\nafter"
    filled = readme.fill(page, RESULTS.__getitem__)
    head, _, rest = filled.partition(f"<!-- measured: {part} -->\n")
    text, _, tail = rest.partition("\n<!-- end -->")
    assert (head, tail) == ("before\n", "\nafter")
    return text


def test_merged_models_that_failed_are_told_of() -> None:
    text = fill("ensembles")

    assert "- two: 1 of 1 equal, at most 0.0e+00 apart; failed: vote" in text
    assert "| two | 2,000 | 1,000 |" in text
    assert "speed, of best: not measured here." in text


# --- the pages that stand in the repository ----------------------------------------------------


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: str(page.relative_to(readme.ROOT)))
def test_a_page_says_what_was_measured(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- measured: " in text
    assert readme.fill(text) == text


@pytest.mark.parametrize("suite", store.SUITES)
def test_results_say_on_which_machine_and_software_they_were_measured(suite: str) -> None:
    results = store.load(suite)
    assert results["suite"] == suite
    assert results["date"]
    machine = results["environment"]
    assert {"cpu", "memory_mb", "os", "python", "packages", "providers", "gpus"} <= machine.keys()
    assert machine["cpu"]["model"] != "unknown"
    assert {"onnxpress", "onnx", "onnx-ir", "onnxruntime", "onnxsim"} <= machine["packages"].keys()


def test_results_cover_the_whole_corpus() -> None:
    corpus = set(load_corpus())
    lossless = store.load("lossless")["rows"]
    assert {(row["model"], row["level"]) for row in lossless} == {
        (name, level) for name in corpus for level in {row["level"] for row in lossless}
    }
    compiling = store.load("compile-time")
    assert {row["model"] for row in compiling["rows"]} == corpus
    assert {"onnxslim"} <= compiling["environment"]["packages"].keys()
    rows = store.load("shipped")["rows"]
    assert [(row["net"], row["variant"]) for row in rows] == [
        (variant.net, variant.name) for variant in shipped.variants()
    ]


def test_the_commands_of_the_readme_stand_there_as_they_are_typed() -> None:
    lines = readme.PAGES[0].read_text(encoding="utf-8").splitlines()
    assert f"pip install . && {readme.COMMAND}" in lines
    assert "pip install -e '.[test]' && pytest" in lines


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: str(page.relative_to(readme.ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [link for link in links if not link.startswith("http")]
    assert len(inside) >= 4
    for link in inside:
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {head.lower().replace(" ", "-") for head in heads}


# --- how parts are written ---------------------------------------------------------------------


def test_a_transcript_shows_the_command_and_what_it_printed() -> None:
    assert fill("transcript") == "```text\n$ onnxpress --version\nonnxpress 0.1.0\n```"


def test_a_summary_counts_what_failed_and_what_got_slower() -> None:
    assert "| `-O 1` | 3 | 2 | 1 | 1 | 0 | 1 | 1.00x |\n" in fill(
        "lossless"
    )  # the geometric mean of 2 and 1/2


def test_only_models_that_are_faster_are_said_to_gain() -> None:
    gaining = fill("lossless").split("| verdict |")[1]
    assert "| a | 10 → 5 |" in gaining
    assert "| b |" not in gaining


def test_a_table_of_models_hides_none() -> None:
    text = fill("lossless-models")
    assert "| a | 10 → 5 | 2.00x (1.90 to 2.10) | faster | ok |" in text
    assert "| b | 1,000 → 900 | 0.50x (0.40 to 0.60) | slower | ok |" in text
    assert "| c | no answer within 900 s |  |  |  |" in text


def test_a_row_of_a_shipped_net_has_sizes_accuracy_and_interval() -> None:
    row = "| cnn_0 | int8 | 0.50x (0.40 to 0.60) | 492 → 130 kB | 2.5 → 2.5 M | 98.00 → 97.00 |"
    assert row in fill("shipped")


def test_node_counts_show_who_failed_and_who_is_wrong() -> None:
    text = fill("node-counts")
    assert "| a | 10 | 5 | 4 | 3 wrong |\n" in text
    assert "| b | 1,000 | 900 | fails | 950 |\n" in text
    assert "| c |  | fails |  |  |\n" in text


def test_compile_times_show_who_failed() -> None:
    assert "| `-O 1` | onnxsim 3 | 1.25 | 1 |" in fill("compile-time")
    growth = "From 1,000 to 20,000 nodes the time of `-O 1` grows 1.10 times as fast"
    assert growth in fill("compile-time")
    assert "| b | 10 | 100 | fails |" in fill("compile-times")


def test_a_glance_gives_the_whole_range() -> None:
    assert fill("glance").splitlines() == [
        "- **Int8**: 0.50 times as fast, files 3.78 times smaller, "
        "top-1 at most 1.00 points lower.",
        "- **Lossless, `-O 1`**: answers agree on 2 of 3 models, 0.50 to 2.00 times as fast, "
        "1.00 in the geometric mean.",
        "- **Compile time** at `-O 1`: 1.25 times onnxsim's (geometric means).",
    ]


def test_losses_name_whatever_is_behind() -> None:
    assert fill("losses").splitlines() == [
        "- `-O 1` makes no significant difference on 0 of 3 models.",
        "- `-O 1` makes b slower: 0.50x (0.40 to 0.60).",
        "- `-O 1` fails on c: no answer within 900 s.",
        "- `-O 1` leaves 5 nodes of a, onnxsim 4.",
        "- cnn_0, int8: slower, 0.50x (0.40 to 0.60).",
        "- cnn_0, int8: loses 1.00 points of top-1.",
        "- Compiling at `-O 1` takes longer than onnxsim does on 1 of 1 models, 1.2 times as long "
        "at worst.",
    ]


@pytest.mark.parametrize("part", sorted(tables.PARTS))
def test_a_part_names_the_machine_or_shows_the_raw_output(part: str) -> None:
    text = fill(part)
    assert "A CPU (zen3, avx512_vnni), 2 CPUs" in text or part in {"transcript", "glance", "losses"}


def test_a_part_that_does_not_exist_is_refused() -> None:
    with pytest.raises(CorpusError, match="no measured part 'hopes'"):
        readme.fill("<!-- measured: hopes -->\n<!-- end -->", RESULTS.__getitem__)


def test_a_captured_command_is_run_and_its_failure_told() -> None:
    captured = readme.capture("onnxpress --version")
    assert captured["output"] == ["onnxpress 0.1.0"]
    with pytest.raises(CorpusError, match="onnxpress optimise ended with 2"):
        readme.capture("onnxpress optimise")
