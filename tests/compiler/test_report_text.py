"""Reports in words: nothing is called agreement that was not checked, and numbers are readable."""

from __future__ import annotations

import pytest

from onnxpress.compiler.report import Report
from onnxpress.compiler.report_text import (
    change_text,
    detail_texts,
    environment_texts,
    latency_text,
    quantity,
    sizes,
    verified_text,
)


@pytest.mark.parametrize(
    ("verified", "text"),
    [
        ({"status": "not-run", "reason": "no operator"}, "not checked: no operator"),
        ({"status": "not-run"}, "not checked"),
        ({"status": "not-comparable", "reason": "random"}, "not comparable: random"),
        ({"status": "ok", "cases": 2, "max_abs": 0.5}, "agree (largest difference 0.5, 2 runs)"),
        ({"status": "ok", "cases": 1, "sqnr_db": 130.0}, "agree (SQNR 130.0 dB, 1 run)"),
        ({"status": "ok", "exact": False, "sqnr_db": 30.0}, "within the contract (SQNR 30.0 dB)"),
        (
            {
                "status": "ok",
                "exact": False,
                "outputs": {
                    "a": {"top1_agreement": 0.99},
                    "b": {"top1_agreement": 0.5},
                    "c": {"top1_agreement": None},
                },
            },
            "within the contract (same top-1 in 50.0%)",
        ),
        ({"status": "failed", "reason": "y is off"}, "differ: y is off"),
    ],
)
def test_what_was_not_checked_is_never_called_agreement(
    verified: dict[str, object], text: str
) -> None:
    assert verified_text(verified) == text


def test_latency_begins_with_the_verdict() -> None:
    measured = {
        "status": "measured",
        "before": {"median_ms": 2.0},
        "after": {"median_ms": 1.0},
        "speedup": 2.0,
        "ci95": [1.9, 2.1],
        "verdict": "faster",
        "threads": 0,
    }
    said = "faster: 2.000 ms → 1.000 ms, 2.00x (95% interval 1.90 to 2.10), default threads"
    assert latency_text(measured) == said
    assert latency_text({**measured, "threads": 1}).endswith(", 1 thread")
    assert latency_text({**measured, "threads": 2, "prepacking": False}).endswith(
        ", 2 threads, weights not prepacked, to save memory"
    )
    assert latency_text({"status": "not-measured", "reason": "off"}) == "not measured: off"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1.000 kB"), (716_384, "716.4 kB")),
        *((999_960, "1.000 MB"), (999_940, "999.9 kB"), (2.5e9, "2.500 GB"), (3e15, "3000. TB")),
    ],
)
def test_quantities_have_four_digits(value: float, text: str) -> None:
    assert quantity(value, "B") == text
    assert quantity(value) == text.removesuffix("B").rstrip()


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        *((100, 100, ""), (0, 5, ""), (100, 50, "-50.0%"), (54, 123, "+127.8%")),
        *((1000, 999, "-0.1%"), (100_000, 99_970, "-0.03%"), (10**6, 10**6 + 1, "<0.01%")),
    ],
)
def test_a_small_change_is_not_rounded_away(before: int, after: int, text: str) -> None:
    assert change_text(before, after) == text


def report() -> Report:
    return Report(
        input="in.onnx",
        output="out.onnx",
        target="cpu",
        pipeline="",
        nodes=[1234, 1000],
        bytes=[2000, 1000],
        macs=[None, None],
        parameters=[7, 7],
        passes=[],
        verified={"status": "not-run"},
        latency={"status": "not-measured"},
        search={"status": "not-measured", "reason": "off"},
        session={"status": "not-measured", "reason": "off"},
        seconds=0.0,
        environment={
            "cpu": {"model": "Some CPU", "features": ["a", "b"], "quota": None},
            "memory_mb": 8,
            "packages": {"onnx": "1.0", "numpy": "2.0"},
            "gpus": [{"name": "H", "driver": "5"}],
            "providers": [],
        },
    )


def test_sizes_in_rows() -> None:
    assert sizes(report()) == [
        ("nodes", "1,234", "1,000", "-19.0%"),
        ("parameters", "7", "7", ""),
        ("MACs", "not known", "not known", ""),
        ("file size", "2.000 kB", "1.000 kB", "-50.0%"),
    ]


def test_the_environment_in_words() -> None:
    assert environment_texts(report()) == [
        ("cpu", "model Some CPU, features a b"),
        ("memory, MB", "8"),
        ("packages", "onnx 1.0, numpy 2.0"),
        ("gpus", "name H driver 5"),
        ("providers", "none"),
    ]


def test_long_details_are_counted() -> None:
    details = {
        "small_map": {"Conv": 15, "Add": 6},
        "empty": {},
        "long_map": dict.fromkeys("abcdefghi", 1),
        "one_range": {"x": [0.0, 1.0]},
        "flag": True,
        "ratio": 0.123456,
        "pair": [20183936, 5],
        "long": list(range(1000)),
        "name": "text",
    }
    assert detail_texts(details) == [
        ("small map", "Conv 15, Add 6"),
        ("empty", "none"),
        ("long map", "9 entries"),
        ("one range", "1 entry"),
        ("flag", "yes"),
        ("ratio", "0.1235"),
        ("pair", "20,183,936, 5"),
        ("long", "1,000 values"),
        ("name", "text"),
    ]
