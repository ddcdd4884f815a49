"""Models timed at several batch sizes and numbers of threads: latency and throughput."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..backends.errors import DataError, UsageError
from ..backends.feeds import dynamic_dims
from .bench import BenchReport, ModelBench, bench
from .model_io import load


@dataclass(frozen=True)
class Point:
    """What was measured at one batch size and number of threads.

    ``batch`` is ``None`` where none was asked for.
    """

    batch: int | None
    threads: int
    report: BenchReport

    def samples_per_second(self, model: ModelBench) -> float | None:
        """Samples of a batch over the median latency of ``model``, one batch after another."""
        return None if self.batch is None else 1000 * self.batch / model.latency.median_ms

    def to_json(self) -> dict[str, Any]:
        """The point in JSON-ready form, without the machine."""
        found = self.report.to_json()
        del found["environment"], found["provider"]
        for row, model in zip(found["models"], self.report.models, strict=True):
            row["samples_per_second"] = self.samples_per_second(model)
        return {"batch": self.batch} | found


@dataclass(frozen=True)
class SweepReport:
    """All points of a sweep, in the order of their measurement."""

    points: Sequence[Point]

    def modes(self) -> list[dict[str, Any]]:
        """Each model in two of MLPerf's scenarios: where each is at its best.

        ``single_stream`` is the least p90 latency of a run at the smallest batch, ``offline`` the
        most samples per second at any batch.
        """
        smallest = min(point.batch or 1 for point in self.points)
        return [self._modes(at, smallest) for at in range(len(self.points[0].report.models))]

    def _modes(self, at: int, smallest: int) -> dict[str, Any]:
        rows = [(point, point.report.models[at]) for point in self.points]
        single = [row for row in rows if (row[0].batch or 1) == smallest]
        point, model = min(single, key=lambda row: row[1].latency.p90_ms)
        found: dict[str, Any] = {
            "path": model.path,
            "single_stream": {
                "p90_ms": model.latency.p90_ms, "batch": point.batch, "threads": point.threads
            },
        }  # fmt: skip
        most = max(rows, key=lambda row: row[0].samples_per_second(row[1]) or 0.0)
        if (rate := most[0].samples_per_second(most[1])) is not None:
            found["offline"] = {
                "samples_per_second": rate, "batch": most[0].batch, "threads": most[0].threads
            }  # fmt: skip
        return found

    def to_json(self) -> dict[str, Any]:
        """The report of the first point, with all of them as ``sweep``, and the ``modes``."""
        return self.points[0].report.to_json() | {
            "sweep": [point.to_json() for point in self.points],
            "modes": self.modes(),
        }


def sweep(
    paths: Sequence[str | Path],
    *,
    batches: Sequence[int] = (),
    threads: Sequence[int] = (0,),
    dims: Mapping[str, int] | None = None,
    **options: Any,
) -> SweepReport:
    """Time the models in ``paths`` at every batch size with every number of threads.

    Everything else is as in :func:`~onnxpress.compiler.bench.bench`, once for each point.

    Raises:
        UsageError: The first model fixes its batch, or ``dims`` set it as well.
        DataError: The data holds fewer samples than a batch.
    """
    if not paths:
        raise UsageError("there is no model to time")
    names = batch_dims(load(Path(paths[0])), str(paths[0])) if batches else ()
    if twice := [name for name in names if name in (dims or {})]:
        raise UsageError(
            f"the size of {twice[0]!r} is given by --dim and by --batch", hint="leave one of them"
        )
    points = []
    for count, batch in itertools.product(threads, batches or (None,)):
        sizes = dict(dims or {}) | dict(_sizes(names, batch, made_up=options.get("data") is None))
        report = bench(paths, threads=count, dims=sizes, **options)
        _check(report, batch)
        points.append(Point(batch, count, report))
    return SweepReport(points)


def batch_dims(model: ir.Model, name: str) -> tuple[str, ...]:
    """The dynamic first dimensions of the inputs of ``model``.

    Raises:
        UsageError: There is none, so that the batch size is fixed.
    """
    found = tuple(one.name for one in dynamic_dims(model) if one.role == "batch" and one.axis == 0)
    if not found:
        raise UsageError(
            f"the batch size of {name} is fixed: no input has a dynamic first dimension",
            hint="leave --batch away, or export the model with a dynamic batch",
        )
    return found


def _sizes(names: Sequence[str], batch: int | None, *, made_up: bool) -> Iterator[tuple[str, int]]:
    if batch is not None:
        yield from ((name, batch) for name in (names if made_up else ("batch",)))


def _check(report: BenchReport, batch: int | None) -> None:
    most = max((shape[0] for shape in report.feeds.values() if shape), default=0)
    if batch is not None and most < batch:
        raise DataError(
            f"the data holds {most} samples, fewer than a batch of {batch}",
            hint="give more samples, or ask for smaller batches",
        )
