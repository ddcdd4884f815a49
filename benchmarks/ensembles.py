"""One merged model against its members run one by one: how fast each layout is, and which pays.

Both sides are called as a user calls them: ``session.run`` from arrays to arrays; the members'
answers are combined in NumPy, outside any session.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir

import onnxpress
from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import OrtSession, session_of
from onnxpress.backends.targets import Target
from onnxpress.backends.timing import compare_latency
from onnxpress.compiler.layouts import FORMS, batch_feeds, choose_layout
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import Pipeline, preset
from onnxpress.compiler.settings import Settings
from onnxpress.passes.base import Context
from onnxpress.passes.ensembles.combine import Combine

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


def measure(case: Case, *, seconds: float = 1.0) -> Iterator[dict[str, Any]]:
    """A row for each number of threads and batch size; JSON-ready.

    ``speedup`` is against the members one after another in sessions of their own, ``threads_apart``
    against each in a thread of its own, ``of_best`` the latency of the best layout over that of the
    one that ``auto`` chose, which was timed before and apart.
    """
    merged = case.merged()
    target = Target("cpu")
    base = preset(2, target)
    layouts = dict(compiled(merged, base, target))
    for threads in THREADS:
        config = SessionConfig(threads=threads)
        members = [session_of(model, config) for model in case.models]
        sessions = {name: session_of(model, config) for name, model in layouts.items()}
        for batch in BATCHES:
            feeds = dict(batch_feeds(merged, batch, None, {}, 0))
            settings = Settings(target=target, time=True, threads=threads)
            _, chosen = choose_layout(merged, base, "auto", settings, (batch,))
            with ThreadPoolExecutor(len(members)) as pool:
                runs = {
                    "apart": apart(case, members, feeds),
                    "threads": apart(case, members, feeds, pool),
                    **{name: together(session, feeds) for name, session in sessions.items()},
                }
                timings = compare_latency(
                    list(runs.values()), list(runs), seconds=seconds * len(runs)
                )
            yield row(case, threads, batch, timings, chosen["passes"])


def compiled(merged: ir.Model, base: Pipeline, target: Target) -> Iterator[tuple[str, ir.Model]]:
    """The merged model in each layout, by the passes that give it."""
    for passes, form in FORMS.items():
        run = PassManager(base + form).run(merged, Context(target=target))
        stacked = any(one.name == "stack-members" and one.modified for one in run.records)
        if stacked or not passes:
            yield passes, run.model


def apart(
    case: Case,
    members: Sequence[OrtSession],
    feeds: dict[str, Array],
    pool: ThreadPoolExecutor | None = None,
) -> Callable[[], object]:
    """Runs the members, one after another or all at once in ``pool``, and combines in NumPy."""
    values = list(feeds.values())
    own = [
        {spec.name: value for spec, value in zip(member.inputs, values, strict=True)}
        for member in members
    ]
    natives = [member.native for member in members]

    def one(index: int) -> Array:
        answer: Array = natives[index].run(None, own[index])[0]
        return answer

    def run() -> object:
        answers = list((map if pool is None else pool.map)(one, range(len(members))))
        return answers if case.combine == "none" else np.mean(answers, axis=0)

    return run


def together(session: OrtSession, feeds: dict[str, Array]) -> Callable[[], list[Array]]:
    """Runs the merged model."""
    native = session.native

    def run() -> list[Array]:
        answers: list[Array] = native.run(None, feeds)
        return answers

    return run


def row(case: Case, threads: int, batch: int, timings: Any, chosen: str) -> dict[str, Any]:
    """What was measured, as one row."""
    names = list(timings.names)
    median = dict(zip(names, (one.median_ms for one in timings.latencies), strict=True))
    layouts = {name: ms for name, ms in median.items() if name not in {"apart", "threads"}}
    at = names.index(chosen)
    pair = timings.pair(0, at)
    return {
        "case": case.name,
        "members": len(case.models),
        "threads": threads,
        "batch": batch,
        "median_ms": median,
        "chosen": chosen,
        "speedup": pair.speedup,
        "ci95": list(pair.ci95),
        "threads_apart": timings.pair(1, at).speedup,
        "of_best": min(layouts.values()) / median[chosen],
    }
