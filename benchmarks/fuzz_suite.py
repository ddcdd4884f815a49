"""The command that runs random models."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from onnxpress.backends.errors import OnnxpressError

from . import fuzz, store
from .corpus import cache_folder


def fuzz_suite(
    cases: Annotated[int, typer.Option(min=1, help="How many random models.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
    pipelines: Annotated[
        list[str] | None,
        typer.Option(
            "--pipeline",
            help="A level, `shuffled` (every exact pass, in a random order) or pipeline text; "
            "may be given again. Default: 1, 2 and shuffled.",
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where findings are saved. Default: beside the corpus.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on where a run was interrupted.")] = True,
    results: Annotated[
        Path | None, typer.Option(help="Folder to write the results to; not by default.")
    ] = None,
) -> None:
    """Take random models through the exact passes and check their answers."""
    folder = folder or cache_folder().parent / "fuzz" / str(seed)
    state = fuzz.start(folder, seed, pipelines or list(fuzz.PIPELINES), resume=resume)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if state.cases:
        console.print(f"going on after {state.cases:,} cases")

    def step(outcome: dict[str, Any]) -> None:
        for one in outcome["findings"]:
            console.print(f"case {one['case']}, {one['pipeline']}: {one['what']}", markup=False)
            console.print(f"  {one['saved']}", markup=False)
        if state.cases % 500 == 0:
            found = len(state.findings)
            console.print(f"{state.cases:,} cases, {found} findings, {state.seconds:.0f} s")

    fuzz.fuzz(state, cases, folder, step)
    _print(state)
    if results is not None:
        console.print(f"wrote {store.save('fuzz', asdict(state), folder=results)}")
    if state.findings:
        raise OnnxpressError(
            f"{len(state.findings)} findings", hint=f"models and inputs are in {folder}"
        )


def _print(state: fuzz.Fuzzing) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{state.cases:,} cases of seed {state.seed}, each through {', '.join(state.pipelines)}: "
        f"{len(state.findings)} findings, {state.not_run} that ONNX Runtime does not run, "
        f"{len(state.operators)} operators, {state.seconds:.0f} s",
        markup=False,
    )
    for head, counts in (("rewrites", state.rewrites), ("operators", state.operators)):
        most = Counter(counts).most_common()
        console.print(f"{head}: " + ", ".join(f"{name} {count:,}" for name, count in most))
