"""The harness judged by itself: pairs of models whose difference is known, timed as all are.

A model against its own copy has to come out as no significant difference, and a model of 21 equal
layers against one of 20, which is 5% slower by construction, as slower. Each trial is a process of
its own with new sessions, because two sessions of one model differ by how their memory lies.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

import onnxpress
from onnxpress.backends.base import Feeds
from onnxpress.compiler.latency import WIDTH, latency_before_and_after, timing_feeds

from .apart import CallError, apart

MODELS = Path(__file__).with_name("models")
SHIPPED = ("mnist_cnn_0", "mnist_resnet", "mnist_mobilenet")
WIDTHS = (128, 256)
LAYERS = 20
"""Layers of the faster chain; one more is 5% more work."""
EXPECTED = {"same": "no significant difference", "slowed": "slower"}
NEEDED = {"same": 0.95, "slowed": 0.90}
"""The share of trials that has to come out as expected."""
_LIMIT = 120.0


def cases() -> Iterator[dict[str, Any]]:
    """Trials without end, so that every model and number of threads has its turn."""
    kinds = [("same", name) for name in (*SHIPPED, *map(_chain_name, WIDTHS))]
    kinds += [("slowed", _chain_name(width)) for width in WIDTHS] * 2
    for number in range(10**6):
        for threads in (1, 0):
            for kind, name in kinds:
                yield {"kind": kind, "model": name, "threads": threads, "number": number}


def schedule(kind: str, load: bool, trials: int) -> list[dict[str, Any]]:
    """The first ``trials`` cases of one kind, each with its place as ``trial``."""
    found = (case for case in cases() if case["kind"] == kind)
    return [
        {"kind": kind, "load": load, "trial": at} | {k: next_[k] for k in ("model", "threads")}
        for at, next_ in zip(range(trials), found, strict=False)
    ]


def measure(case: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The row of one trial: what was timed, the ratio, its interval, the verdict."""
    with background(os.cpu_count() or 1) if case["load"] else background(0):
        try:
            found = apart(_measure, dict(case), seconds, limit=_LIMIT)
        except CallError as error:
            return {**case, "error": str(error)}
    return {**case, **found, "load_average": round(os.getloadavg()[0], 2)}


def _measure(case: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    before, after, feeds = _pair(case["kind"], case["model"])
    found = latency_before_and_after(
        before,
        after,
        feeds,
        threads=case["threads"],
        seconds=seconds,
        width=WIDTH,
        seed=case["trial"],
    )
    if found["status"] != "measured":
        raise RuntimeError(found["reason"])
    kept = ("speedup", "ci95", "verdict", "drift")
    return {"median_ms": found["before"]["median_ms"]} | {k: found[k] for k in kept if k in found}


def _pair(kind: str, name: str) -> tuple[ir.Model, ir.Model, Feeds]:
    """The two models of a trial, and what to run them on."""
    if name in SHIPPED:
        before, after = (onnxpress.load(MODELS / f"{name}.onnx") for _ in range(2))
        return before, after, timing_feeds(before)
    width = int(name.rpartition("-")[2])
    layers = LAYERS + (1 if kind == "slowed" else 0)
    feeds = {"x": np.random.default_rng(0).standard_normal((32, width)).astype(np.float32)}
    return ir.from_proto(chain(width, LAYERS)), ir.from_proto(chain(width, layers)), feeds


def _chain_name(width: int) -> str:
    return f"chain-{width}"


def chain(width: int, layers: int) -> onnx.ModelProto:
    """``layers`` equal layers, each a product with a square matrix and a ``Relu``."""
    rng = np.random.default_rng(1)
    nodes, weights, value = [], [], "x"
    for at in range(layers):
        matrix = rng.standard_normal((width, width)) * np.sqrt(2 / width)
        weights.append(numpy_helper.from_array(matrix.astype(np.float32), f"w{at}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{at}"], [f"p{at}"]))
        value = f"r{at}" if at < layers - 1 else "y"
        nodes.append(helper.make_node("Relu", [f"p{at}"], [value]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [32, width]) for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@contextmanager
def background(processes: int) -> Iterator[None]:
    """Other work on the machine meanwhile: so many processes, each at work about half the time."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_work, args=(at,), daemon=True) for at in range(processes)]
    for one in started:
        one.start()
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.join()


def _work(seed: int) -> None:
    parent = multiprocessing.parent_process()
    rng, matrix = random.Random(seed), np.ones((64, 64), np.float32)
    while parent is not None and parent.is_alive():
        until = time.monotonic() + rng.uniform(0.01, 0.4)
        while time.monotonic() < until:
            matrix @ matrix
        time.sleep(rng.uniform(0.01, 0.4))


def title(one: Mapping[str, Any]) -> str:
    """What a line of :func:`summary` is about."""
    what = "a model against its copy" if one["kind"] == "same" else "a model slowed by 5%"
    return f"{what}, {'under load' if one['load'] else 'no load added'}"


def summary(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many trials of each kind came out as expected, and how wide their intervals were."""
    groups: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["load"]), []).append(row)
    found = []
    for (kind, load), group in groups.items():
        fine = [row for row in group if row.get("verdict") == EXPECTED[kind]]
        widths = [row["ci95"][1] / row["ci95"][0] - 1 for row in group if "ci95" in row]
        found.append(
            {
                "kind": kind,
                "load": load,
                "trials": len(group),
                "as_expected": len(fine),
                "failed": sum("error" in row for row in group),
                "needed": NEEDED[kind],
                "holds": len(fine) >= NEEDED[kind] * len(group),
                "median_width": float(np.median(widths)) if widths else None,
            }
        )
    return found
