"""One merged model against its members run one by one: how fast each layout is, and which pays.

Both sides are called as a user calls them, each in a process of its own: ``session.run`` from
arrays to arrays; the members' answers are combined in NumPy, outside any session.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir

import onnxpress
from onnxpress.backends.base import Feeds, SessionConfig
from onnxpress.backends.targets import Target
from onnxpress.backends.timing import Timings, compare_latency
from onnxpress.compiler.layouts import FORMS, batch_feeds, choose_layout, choose_waiting
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import Pipeline, preset
from onnxpress.compiler.settings import Settings
from onnxpress.passes.base import Context
from onnxpress.passes.ensembles.combine import Combine

from .contenders import Contest, Way
from .corpus import SHIPPED, load_corpus

TRIO = ("oskut-deepcut", "oskut-tl-deepcut-ws", "oskut-tl-deepcut-tnhc")
THREADS = (1, 2)
BATCHES = (1, 32)


@dataclass(frozen=True)
class Case:
    """Models to merge."""

    name: str
    models: tuple[ir.Model, ...]
    combine: Combine = "mean"
    feeds: Feeds | None = None
    """What to run them on, where random numbers say little."""

    @property
    def names(self) -> list[str]:
        """What the members are called."""
        return [f"m{index}" for index in range(len(self.models))]

    def merged(self) -> ir.Model:
        """The members side by side."""
        return onnxpress.merge(self.models, names=self.names, combine=self.combine).model


def cases(cache: Path | None = None) -> Iterator[Case]:
    """All that is measured and there."""
    cnns = [SHIPPED / f"mnist_cnn_{index}.onnx" for index in range(4)]
    yield Case("four CNNs", tuple(map(onnxpress.load, cnns)))
    yield Case("16 perceptrons", tuple(perceptron(seed) for seed in range(16)))
    corpus = load_corpus(cache)
    if all(corpus[name].is_fetched for name in TRIO):
        yield Case("oskut trio", tuple(onnxpress.load(corpus[name].path) for name in TRIO))
    yield Case("shared backbone", shared_backbone(), "none")


def perceptron(seed: int, sizes: Sequence[int] = (784, 256, 256, 10)) -> ir.Model:
    """Three linear layers as PyTorch writes them, with random weights."""
    rng = np.random.default_rng(seed)
    lines, weights, last = [], [], "x"
    for index, (width, height) in enumerate(itertools.pairwise(sizes)):
        weight = rng.normal(0, width**-0.5, (height, width)).astype(np.float32)
        bias = rng.normal(0, 0.1, height).astype(np.float32)
        weights += [
            onnx.numpy_helper.from_array(weight, f"w{index}"),
            onnx.numpy_helper.from_array(bias, f"b{index}"),
        ]
        lines.append(f"g{index} = Gemm <transB: int = 1> ({last}, w{index}, b{index})")
        last = f"r{index}"
        lines.append(f"{last} = Relu (g{index})")
    lines[-1] = f"y = Softmax <axis: int = -1> (g{len(sizes) - 2})"
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"perceptron (float[batch,{sizes[0]}] x) => (float[batch,{sizes[-1]}] y) "
        f"{{ {' '.join(lines)} }}"
    )
    proto.graph.initializer.extend(weights)
    return ir.from_proto(proto)


def shared_backbone() -> tuple[ir.Model, ir.Model]:
    """The ResNet that ships, and the same with another last layer."""
    models = [onnxpress.load(SHIPPED / "mnist_resnet.onnx") for _ in range(2)]
    heads = [node for node in models[1].graph if node.op_type in {"Gemm", "MatMul"}]
    weight = heads[-1].inputs[1]
    if weight is None or weight.const_value is None:
        raise TypeError("the ResNet does not end in a linear layer")
    other = np.random.default_rng(0).standard_normal(tuple(weight.const_value.shape.numpy()))
    weight.const_value = ir.tensor(other.astype(np.float32), name=weight.name)
    return models[0], models[1]


def measure(case: Case, threads: int, batch: int, *, seconds: float = 1.0) -> dict[str, Any]:
    """What the ways to run ``case`` take on so many threads; JSON-ready.

    ``auto`` is what ``onnxpress merge --layout auto`` writes: a layout and, where others are
    faster, session options, both chosen before and apart. ``against`` compares it with every
    alternative, the members one after another (``apart``) and each in a thread of its own, with
    sessions of one thread (``at once``), among them. All have as many cores as threads, so that
    ``at once`` gets no more of the machine than the others.
    """
    merged = case.merged()
    target = Target("cpu")
    base = preset(2, target)
    layouts = dict(compiled(merged, base, target))
    feeds = dict(batch_feeds(merged, batch, None, {}, 0))
    settings = Settings(target=target, time=True, threads=threads)
    _, layout = choose_layout(merged, base, "auto", settings, (batch,))
    chosen = layout["passes"]
    config, waiting = choose_waiting(layouts[chosen], settings, (batch,))
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{at}.onnx" for at, name in enumerate(layouts)}
        for name, file in files.items():
            onnxpress.save(layouts[name], file)
        members = tuple(Path(folder) / f"{name}.onnx" for name in case.names)
        for model, file in zip(case.models, members, strict=True):
            onnxpress.save(model, file)
        plain, single = SessionConfig(threads=threads), SessionConfig(threads=1)
        mean = case.combine != "none"
        ways = {
            "apart": Way(members, plain, mean=mean, cores=threads),
            "at once": Way(members, single, at_once=True, mean=mean, cores=threads),
            **{name: Way((file,), plain, cores=threads) for name, file in files.items()},
        }
        if config is not None:
            ways["auto"] = Way((files[chosen],), config, cores=threads)
        with Contest(list(ways.values()), feeds) as contest:
            runs = contest.contenders
            timings = compare_latency(runs, list(ways), seconds=seconds * len(runs))
    at = list(ways).index("auto" if config is not None else chosen)
    return row(case, threads, batch, timings, at) | {
        "chosen": chosen,
        "options": waiting.get("options", {}),
        "load": os.getloadavg()[0],
    }


def compiled(merged: ir.Model, base: Pipeline, target: Target) -> Iterator[tuple[str, ir.Model]]:
    """The merged model in each layout, by the passes that give it."""
    for passes, form in FORMS.items():
        run = PassManager(base + form).run(merged, Context(target=target))
        stacked = any(one.name == "stack-members" and one.modified for one in run.records)
        if stacked or not passes:
            yield passes, run.model


def sizes(case: Case) -> dict[str, Any]:
    """The bytes of the members' files and of the merged one's."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.onnx" for name in (*case.names, "merged")]
        for model, file in zip((*case.models, case.merged()), files, strict=True):
            onnxpress.save(model, file)
        *members, merged = [file.stat().st_size for file in files]
    return {"case": case.name, "members": sum(members), "merged": merged}


def row(case: Case, threads: int, batch: int, timings: Timings, auto: int) -> dict[str, Any]:
    """What was measured, as one row; ``auto`` is the place of what ``--layout auto`` gives."""
    pairs = {name: timings.pair(at, auto) for at, name in enumerate(timings.names) if at != auto}
    nearest = min(pairs.values(), key=lambda pair: pair.speedup)
    return {
        "case": case.name,
        "members": len(case.models),
        "threads": threads,
        "batch": batch,
        "median_ms": {
            name: latency.median_ms
            for name, latency in zip(timings.names, timings.latencies, strict=True)
        },
        "against": {
            name: {"speedup": pair.speedup, "ci95": list(pair.ci95)} for name, pair in pairs.items()
        },
        "of_best": nearest.speedup,
        "of_best_ci95": list(nearest.ci95),
    }
