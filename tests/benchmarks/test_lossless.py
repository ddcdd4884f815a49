"""The lossless table: rows kept and measured again, peers beside it, answers on eight inputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxpress
from benchmarks import agreement, cli, lossless, lossless_suite, peers, store
from benchmarks.__main__ import main
from benchmarks.corpus import load_corpus
from benchmarks.peers import Peer

LATENCY = {"status": "measured", "speedup": 1.5, "ci95": [1.4, 1.6], "verdict": "faster"}


def row_of(name: str, level: int, **more: Any) -> dict[str, Any]:
    return {
        "model": name,
        "level": level,
        "nodes": [21, 20 - level],
        "verified": "ok",
        "reason": "",
        "quarantined": {},
        "withdrawn": {},
        "latency": LATENCY,
    } | more


def peer_of(name: str, peer: str, **more: Any) -> dict[str, Any]:
    row = {"model": name, "peer": peer, "nodes": 18, "seconds": 1.0, "answers": "ok", "reason": ""}
    return row | more


# --- answers -----------------------------------------------------------------------------------


def test_models_are_compared_on_eight_inputs_at_all_sizes() -> None:
    model = load_corpus()["mnist-resnet"]
    feeds = agreement.seeded(model)
    assert [one["image"].shape[0] for one in feeds] == [1, 2, 32, 1, 2, 32, 1, 2]
    assert not np.array_equal(feeds[0]["image"], feeds[3]["image"])
    again = agreement.seeded(model)
    assert all(
        np.array_equal(one["image"], two["image"]) for one, two in zip(feeds, again, strict=True)
    )


def test_a_model_agrees_with_itself_on_all_of_them() -> None:
    model = load_corpus()["mnist-cnn-0"]
    original = onnxpress.load(model.path)
    found = agreement.verifier(model, original).check(original)
    assert agreement.verdict(found) == ("ok", "")
    found.cases = 7
    assert agreement.verdict(found) == ("not-run", "only 7 inputs were run")
    found.status, found.reason = "failed", "it is wrong"
    assert agreement.verdict(found) == ("failed", "it is wrong")


# --- peers -------------------------------------------------------------------------------------


def _wrong(model: onnx.ModelProto) -> onnx.ModelProto:
    weight = next(one for one in model.graph.initializer if len(one.dims) > 1)
    array = onnx.numpy_helper.to_array(weight) * np.float32(1.1)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    return model


def _broken(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.graph.node[0]
    return model


@pytest.mark.parametrize(
    ("simplify", "answers", "reason"),
    [
        (lambda model: model, "ok", ""),
        (_wrong, "failed", "output .* off"),
        (_broken, "failed", "it is not valid"),
    ],
)
def test_the_result_of_a_peer_is_checked(
    simplify: Any, answers: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PEERS", {"peer": Peer("pytest", simplify)})
    row = peers._measure("mnist-cnn-0", "peer", None, False)
    assert row["answers"] == answers
    assert re.search(reason, row["reason"])
    assert row["nodes"] == (20 if simplify is _broken else 21)


def test_a_peer_that_fails_has_that_as_its_result() -> None:
    row = peers.measure("mnist-cnn-0", "ort-basic", limit=0.01)
    assert row == {
        "model": "mnist-cnn-0",
        "peer": "ort-basic",
        "failed": "no answer within 0.01 s",
    }
    assert peers.shown(row) == "fails"
    assert peers.shown(peer_of("a", "onnxsim", nodes=1000)) == "1,000"
    assert peers.shown(peer_of("a", "onnxsim", answers="failed")) == "18 wrong"


def test_nodes_of_subgraphs_count_and_constants_do_not() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    main (bool c, float[2] x) => (float[2] y) {
        one = Constant <value_float = 1.0> ()
        y = If (c) <then_branch = then () => (float[2] a) { a = Add (x, one) },
                    else_branch = other () => (float[2] b) { n = Neg (x)  b = Abs (n) }>
    }"""
    assert peers.node_count(onnx.parser.parse_model(text).graph) == 4


@pytest.mark.slow
@pytest.mark.parametrize("peer", list(peers.PEERS))
def test_every_peer_simplifies_a_plain_network(peer: str) -> None:
    pytest.importorskip(peers.PEERS[peer].distribution)
    row = peers.measure("mnist-cnn-0", peer, limit=120)
    assert row["answers"] == "ok", row
    assert row["nodes"] <= 21


# --- the table ---------------------------------------------------------------------------------


def test_the_smallest_peer_is_one_that_is_right() -> None:
    found = [
        peer_of("a", "onnxsim", nodes=5, answers="failed"),
        peer_of("a", "onnxslim", nodes=12),
        peer_of("a", "onnxscript", failed="it crashed", answers=None),
        peer_of("b", "onnxslim", nodes=19),
    ]
    best = lossless.smallest(found, "a")
    assert best is not None
    assert best["peer"] == "onnxslim"
    assert lossless.smallest(found, "c") is None
    rows = [row_of("a", 1), row_of("a", 2), row_of("b", 1), row_of("c", 1)]
    assert [(name, nodes) for name, nodes, _ in lossless.larger(rows, found)] == [("a", 19)]


def test_the_mean_is_geometric_over_what_was_timed() -> None:
    rows = [
        row_of("a", 2, latency=LATENCY | {"speedup": 2.0}),
        row_of("b", 2, latency=LATENCY | {"speedup": 0.5}),
        {"model": "c", "level": 2, "error": "no"},
    ]
    assert lossless.geometric_mean(rows) == pytest.approx(1.0)
    assert lossless.geometric_mean(rows[2:]) is None


def test_the_gain_of_session_options_is_told_apart() -> None:
    faster = {"status": "measured", "speedup": 1.2, "verdict": "faster"}
    same = faster | {"speedup": 1.0, "verdict": "no significant difference"}
    rows = [row_of("a", 3, session=faster), row_of("b", 3, session=same), row_of("c", 3)]
    assert lossless.sessions(rows) == [1.2]
    assert lossless.geometric_mean(rows) == pytest.approx(1.5)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | str]]:
    """What was measured, in order, without measuring."""
    calls: list[tuple[str, int | str]] = []

    def ours(name: str, level: int, **_: Any) -> dict[str, Any]:
        calls.append((name, level))
        return row_of(name, level)

    def theirs(name: str, peer: str, **_: Any) -> dict[str, Any]:
        calls.append((name, peer))
        return peer_of(name, peer)

    monkeypatch.setattr(lossless, "measure", ours)
    monkeypatch.setattr(peers, "measure", theirs)
    return calls


def run(folder: Path, *arguments: str) -> None:
    assert main(["lossless", "--results", str(folder), *arguments]) == 0


def test_one_command_prints_the_table(
    tmp_path: Path,
    measured: list[tuple[str, int | str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(tmp_path, "--models", "mnist-cnn-0,mnist-cnn-1", "--peers", "onnxsim,ort-basic")
    assert len(measured) == 2 * (3 + 2)
    out = capsys.readouterr().out
    assert "-O 2: geometric mean 1.500x over 2 models, 0 slower, least 1.500x" in out
    assert "-O 1 leaves more nodes than the smallest peer of 2 models" in out
    assert "mnist-cnn-0: 19, onnxsim 18" in out
    assert [line.split() for line in out.splitlines() if "mnist-cnn-1 " in line][1] == [
        "mnist-cnn-1", "21", "19", "18", "18"
    ]  # fmt: skip
    kept = store.load("lossless", tmp_path)
    assert len(kept["rows"]) == 6
    assert len(kept["peers"]) == 4


def test_rows_that_are_there_are_kept(
    tmp_path: Path, measured: list[tuple[str, int | str]]
) -> None:
    run(tmp_path, "--models", "mnist-cnn-1", "--levels", "1,2", "--peers", "onnxsim")
    measured.clear()
    run(tmp_path, "--models", "mnist-cnn-*", "--levels", "2", "--peers", "", "--resume")
    assert measured == [("mnist-cnn-0", 2), ("mnist-cnn-2", 2), ("mnist-cnn-3", 2)]
    measured.clear()
    run(tmp_path, "--models", "mnist-cnn-1", "--levels", "1", "--peers", "", "--update")
    assert measured == [("mnist-cnn-1", 1)]
    kept = store.load("lossless", tmp_path)
    assert [(row["model"], row["level"]) for row in kept["rows"]] == [
        ("mnist-cnn-0", 2),
        ("mnist-cnn-1", 1),
        ("mnist-cnn-1", 2),
        ("mnist-cnn-2", 2),
        ("mnist-cnn-3", 2),
    ]
    assert len(kept["peers"]) == 1


def test_a_row_that_failed_is_measured_again(
    tmp_path: Path, measured: list[tuple[str, int | str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = lossless.measure
    failed = {"model": "mnist-cnn-0", "level": 1, "error": "no answer within 900 s"}
    monkeypatch.setattr(lossless, "measure", lambda *_, **__: failed)
    run(tmp_path, "--models", "mnist-cnn-0", "--levels", "1", "--peers", "")
    monkeypatch.setattr(lossless, "measure", works)
    run(tmp_path, "--models", "mnist-cnn-0", "--levels", "1", "--peers", "", "--resume")
    assert measured == [("mnist-cnn-0", 1)]


@pytest.mark.parametrize("arguments", [("--levels", "4"), ("--levels", "x"), ("--peers", "nobody")])
def test_what_does_not_exist_is_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert main(["lossless", "--results", str(tmp_path), *arguments]) == 2


def test_a_quick_run_takes_small_models_and_fetches_them(
    tmp_path: Path, measured: list[tuple[str, int | str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(cli, "fetch", lambda names, cache: fetched.extend(names))
    folders = ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path)]
    assert main(["run", "lossless", "--quick", "--peers", "onnxsim", *folders]) == 0
    shipped = [name for name in lossless_suite.QUICK if name.startswith("mnist")]
    assert set(fetched) == set(lossless_suite.QUICK) - set(shipped)
    by_all = (1, 2, "onnxsim")
    assert set(measured) == {(name, by) for name in shipped for by in by_all}
