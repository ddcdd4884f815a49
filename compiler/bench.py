"""Models timed against each other, with what each takes in memory and where its time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..backends.base import Feeds, Provider, SessionConfig, TensorSpec
from ..backends.data import Data, open_data
from ..backends.environment import environment
from ..backends.errors import UsageError
from ..backends.memory import peak_rss_mb
from ..backends.options import options_of
from ..backends.ort import BoundRun, check_provider, session_of, specs_of
from ..backends.profile import OperatorTime, profile
from ..backends.remote import RemoteSession
from ..backends.timing import Latency, Speedup, compare_latency
from ..passes.analysis.placement import cuda_placement
from ..passes.graph import is_op, nodes_of
from .latency import WIDTH, timing_feeds
from .model_io import load
from .model_io.formats import detect
from .session_file import read_session, session_path


@dataclass(frozen=True)
class ModelBench:
    """One model's measurements; ``peak_rss_mb`` is ``None`` where it was not measured.

    ``operators`` is the per-operator profile, empty where none was asked for. ``transfer_ms`` is
    what inputs and outputs take to the GPU and back, which ``latency`` holds nothing of.
    """

    path: str
    latency: Latency
    peak_rss_mb: float | None
    operators: Sequence[OperatorTime] = ()
    transfer_ms: float | None = None


@dataclass(frozen=True)
class BenchReport:
    """What :func:`bench` measured, and under which conditions.

    ``pairs`` holds the first model against each other one. ``feeds`` are the shapes of the inputs
    by name; ``threads`` 0 is ONNX Runtime's own choice.
    """

    models: Sequence[ModelBench]
    pairs: Sequence[Speedup]
    provider: Provider
    threads: int
    feeds: Mapping[str, list[int]]
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report in JSON-ready form."""
        return {
            "models": [_model_json(model) for model in self.models],
            "pairs": [{**asdict(pair), "ci95": list(pair.ci95)} for pair in self.pairs],
            "provider": self.provider,
            "threads": self.threads,
            "feeds": dict(self.feeds),
            "environment": self.environment,
        }


def _model_json(model: ModelBench) -> dict[str, Any]:
    found = {"path": model.path, **asdict(model.latency), "peak_rss_mb": model.peak_rss_mb}
    if model.transfer_ms is not None:
        found["transfer_ms"] = model.transfer_ms
    if model.operators:
        found["operators"] = [asdict(row) for row in model.operators]
    return found


def bench(
    paths: Sequence[str | Path],
    *,
    provider: Provider = "cpu",
    threads: int = 0,
    dims: Mapping[str, int] | None = None,
    data: str | Data | None = None,
    seconds: float = 5.0,
    operators: bool = False,
    memory: bool = True,
    session: bool = False,
    cuda_graphs: bool = False,
    seed: int = 0,
    progress: Callable[[str, int, int | None], None] = lambda _stage, _done, _total: None,
) -> BenchReport:
    """Time the models in ``paths`` on the same inputs, interleaved.

    Sessions are ONNX Runtime's default ones, in this process. Inputs are the first sample of
    ``data`` (as many as the dimension ``batch`` in ``dims`` says), or made up so that the first
    model accepts them.

    Args:
        paths: The models; all have to take the same inputs.
        provider: Where to run them.
        threads: Intra-op threads; 0 leaves the choice to ONNX Runtime.
        dims: Sizes of named dynamic dimensions.
        data: Samples, or what :func:`~onnxpress.backends.data.open_data` opens.
        seconds: The time for all timed runs together.
        operators: Profile each model operator by operator as well.
        memory: Measure each model's peak memory, in a process of its own.
        session: Time each model that has a session file beside it with the options in it as well,
            under the name of that file; each session then has a process of its own.
        cuda_graphs: Record all kernels of a run once and replay them.
        seed: The root of every random choice.
        progress: Called as ``progress(stage, done, total)``.

    Raises:
        ModelError: A file holds no model.
        UsageError: The models do not take the same inputs, no model is given, or no session file
            is there, or one holds what no session file does; CUDA graphs cannot run a model.
        DataError: The data does not fit, or no inputs were found that the first model accepts.
        BackendError: ONNX Runtime cannot load or run a model.
    """
    if not paths:
        raise UsageError("there is no model to time")
    if cuda_graphs and provider != "cuda":
        raise UsageError("CUDA graphs need the CUDA provider", hint="add --provider cuda")
    check_provider(provider)
    files = [Path(path) for path in paths]
    progress("reading", 0, None)
    models = [load(file) for file in files]
    _check_inputs(files, models)
    for file, model in zip(files, models, strict=True):
        if cuda_graphs:
            check_cuda_graphs(model, str(file))
    samples = open_data(data, specs_of(models[0])) if isinstance(data, str) else data
    feeds = timing_feeds(models[0], data=samples, dims=dims, seed=seed)
    config = SessionConfig(provider=provider, threads=threads, cuda_graphs=cuda_graphs)
    sources: list[Path | ir.Model] = [
        file if _is_binary(file) else model for file, model in zip(files, models, strict=True)
    ]
    del models
    rows = [_Row(str(path), one, config) for path, one in zip(paths, sources, strict=True)]
    if session:
        rows += list(_with_options(rows))

    progress("timing", 0, None)
    with ExitStack() as stack:
        apart = len(rows) > len(sources)
        runs = [stack.enter_context(row.apart(feeds)) if apart else row.run(feeds) for row in rows]
        timings = compare_latency(
            runs, [row.name for row in rows], seconds=seconds, width=WIDTH, seed=seed
        )
    on_gpu = provider == "cuda"
    moved = [
        run.transfer_ms(feeds) if on_gpu and isinstance(run, BoundRun) else None for run in runs
    ]
    del runs
    measured = []
    for index, (row, latency) in enumerate(zip(rows, timings.latencies, strict=True)):
        progress("memory and profile", index, len(rows))
        measured.append(
            ModelBench(
                path=row.name,
                latency=latency,
                peak_rss_mb=_peak(row, feeds) if memory else None,
                operators=profile(row.source, feeds, row.plain) if operators else (),
                transfer_ms=moved[index],
            )
        )
    shapes = {name: list(array.shape) for name, array in feeds.items()}
    return BenchReport(measured, timings.pairs, provider, threads, shapes, environment())


def check_cuda_graphs(model: ir.Model, name: str) -> None:
    """Make sure that all of a run of ``model`` can be recorded and replayed.

    Raises:
        UsageError: A shape is not fixed, a branch or a loop decides what runs, or nodes would run
            on the CPU.
    """
    hint = "leave --cuda-graphs away"
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is None or not all(isinstance(size, int) for size in value.shape):
            raise UsageError(
                f"CUDA graphs need fixed shapes, and that of {value.name!r} in {name} is not",
                hint=f"{hint}, or export the model with fixed shapes",
            )
    branching = sorted({n.op_type for n in nodes_of(model) if is_op(n, "If", "Loop", "Scan")})
    if branching:
        raise UsageError(f"CUDA graphs cannot record {branching[0]}, and {name} has one", hint=hint)
    if fallbacks := cuda_placement(model)["fallbacks"]:
        first = fallbacks[0]
        raise UsageError(
            f"CUDA graphs need every node on the GPU, and in {name} {first['operator']} is not: "
            f"{first['reason']}",
            hint=f"{hint}; `onnxpress inspect {name} --target cuda` shows all of them",
        )


def _is_binary(file: Path) -> bool:
    with file.open("rb") as opened:
        return detect(opened.read(4096), str(file)) == "binary"


@dataclass(frozen=True)
class _Row:
    """One session to time, and what to call it."""

    name: str
    source: Path | ir.Model
    config: SessionConfig

    @property
    def plain(self) -> SessionConfig:
        """For a profile: what is replayed has no operators any more."""
        return replace(self.config, cuda_graphs=False)

    def run(self, feeds: Feeds) -> BoundRun:
        return session_of(self.source, self.config).bind(feeds)

    def apart(self, feeds: Feeds) -> RemoteSession:
        if isinstance(self.source, ir.Model):
            raise UsageError(
                f"{self.name} is a text, which is not timed with a session file",
                hint="write it in the binary format first, or time it without --session",
            )
        return RemoteSession(self.source, self.config, feeds)


def _with_options(rows: Sequence[_Row]) -> Iterator[_Row]:
    """Each of ``rows`` that has a session file, with the options in it."""
    paths = [(row, session_path(row.name)) for row in rows]
    if not any(path.exists() for _, path in paths):
        raise UsageError(
            f"there is no session file {paths[0][1]}",
            hint="`onnxpress optimize -O 3` writes one where other options are faster",
        )
    for row, path in paths:
        if path.exists():
            yield replace(row, name=str(path), config=read_session(path))


def _peak(row: _Row, feeds: Feeds) -> float | None:
    if isinstance(row.source, ir.Model):
        return None  # a text, which ONNX Runtime does not load in a process of its own
    options = options_of(row.config)
    return peak_rss_mb(row.source, feeds, provider=row.config.provider, options=options)


def _check_inputs(files: Sequence[Path], models: Sequence[ir.Model]) -> None:
    first = {spec.name: spec for spec in specs_of(models[0])}
    for file, model in zip(files[1:], models[1:], strict=True):
        other = {spec.name: spec for spec in specs_of(model)}
        if set(other) != set(first):
            difference = f"its inputs are {_listed(other)}, not {_listed(first)}"
        elif clash := next((n for n in first if not _alike(first[n], other[n])), None):
            difference = f"its input {clash!r} is {_text(other[clash])}, not {_text(first[clash])}"
        else:
            continue
        raise UsageError(
            f"{file} cannot be timed against {files[0]}: {difference}",
            hint="models that are timed against each other have to take the same inputs",
        )


def _alike(first: TensorSpec, other: TensorSpec) -> bool:
    """Whether some array fits both."""
    if first.dtype != other.dtype:
        return False
    if first.shape is None or other.shape is None:
        return True
    return len(first.shape) == len(other.shape) and all(
        a == b or not isinstance(a, int) or not isinstance(b, int)
        for a, b in zip(first.shape, other.shape, strict=True)
    )


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(map(repr, specs)) or "none"


def _text(spec: TensorSpec) -> str:
    if spec.shape is None:
        return f"{spec.dtype}[...]"
    return f"{spec.dtype}[{','.join('?' if dim is None else str(dim) for dim in spec.shape)}]"
