"""``python -m benchmarks``: get the models, and measure onnxpress on them.

A suite adds its commands here, by ``app.command(...)`` or ``app.add_typer(...)``; what they share,
``select`` and the options ``Names`` and ``Cache``, is in ``benchmarks.cli``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer
from rich.console import Console

from onnxpress.backends.errors import OnnxpressError

from . import (
    cli,
    differences,
    embeddings,
    ensembles_suite,
    forecast,
    fuzz_suite,
    hardness_suite,
    harness_suite,
    layout,
    lossless_suite,
    probes,
    pruning_suite,
    quantization,
    real_int8,
    rewrites_suite,
    suites,
    text_lines,
)

app = typer.Typer(
    name="benchmarks",
    help="Get the models that onnxpress is measured on, and measure it.",
    no_args_is_help=True,
    add_completion=False,
)
SUITES: dict[str, Callable[..., None]] = {
    "compile-time": suites.compile_time_suite,
    "lossless": lossless_suite.lossless_suite,
    "rewrites": rewrites_suite.rewrites_suite,
    "shipped": suites.shipped_suite,
    "ensembles": ensembles_suite.ensembles_suite,
    "quantization": quantization.quantization_suite,
    "pruning": pruning_suite.pruning_suite,
    "harness": harness_suite.harness_suite,
    "memory": hardness_suite.memory_suite,
    "robustness": hardness_suite.robustness_suite,
}
run = typer.Typer(help="The same suites, as `run SUITE`.", no_args_is_help=True)
for name, suite in SUITES.items():
    app.command(name)(suite)
    run.command(name)(suite)
app.add_typer(run, name="run")
app.command("fetch")(cli.fetch)
app.command("export")(cli.export)
app.command("list")(cli.list_models)
app.command("forecast")(forecast.forecast)
app.command("decisions")(suites.decisions_suite)
app.command("pruning-real")(pruning_suite.pruning_real_suite)
app.command("real-int8")(real_int8.real_int8_suite)
app.command("embeddings")(embeddings.embeddings_suite)
app.command("text-lines")(text_lines.text_lines_suite)
app.command("startup")(suites.startup_suite)
app.command("readme")(suites.write_readme)
app.command("report")(suites.report)
app.command("compare")(differences.compare)
app.command("probe")(probes.probe)
app.command("layout")(layout.layout_suite)
app.command("fuzz")(fuzz_suite.fuzz_suite)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is that of the error, 130 after Ctrl-C."""
    try:
        app(args=None if arguments is None else list(arguments), standalone_mode=True)
    except OnnxpressError as error:
        console = Console(stderr=True, highlight=False)
        console.print(f"error: {error.message}", markup=False, soft_wrap=True)
        if error.hint:
            console.print(f"hint: {error.hint}", markup=False, soft_wrap=True)
        return error.exit_code
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
