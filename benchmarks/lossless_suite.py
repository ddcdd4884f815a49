"""The command that shows what the levels do to real models, beside other simplifiers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from onnxpress.backends.errors import UsageError

from . import cli, lossless, peers, store
from .corpus import load_corpus
from .journal import Journal
from .printing import Limit, Results, Resume, Update, latency_cells, say, table, there, wrote

QUICK = (
    *("mnist-cnn-0", "mnist-resnet", "mnist-mobilenet", "ppocr-cls", "ppocr-det"),
    *("silero-vad", "silero-vad-16k-op15", "oskut-deepcut", "attacut-sc", "light-squeezenet"),
)
"""Models that ship or come in small wheels, from several exporters."""
QUICK_PEERS = ("onnxsim", "onnxslim")


def lossless_suite(
    models: cli.Names = None,
    cache: cli.Cache = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Some small models, fetched where they are not there, at -O 1 and 2 beside two "
            "peers: a few minutes. Results go to a folder of their own.",
        ),
    ] = False,
    levels: Annotated[
        str | None, typer.Option(help="Levels, comma separated. Default: 1,2,3.")
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(
            "--peers",
            help="Simplifiers to count the nodes of, comma separated. Default: every one.",
        ),
    ] = None,
    time_peers: Annotated[
        bool, typer.Option(help="Measure latency of their results, too.")
    ] = False,
    resume: Resume = False,
    update: Update = False,
    budget: Annotated[
        float | None, typer.Option(help="Seconds that the search of -O 3 may take, as its own.")
    ] = None,
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Rewrite every model at every level, check the answers, and time it; peers beside it."""
    if quick:
        models = models or list(QUICK)
        missing = [one for one in cli.select(models, cache) if one.package and not one.is_fetched]
        if missing:
            cli.fetch([one.name for one in missing], cache)
        results = results / "quick" if results == store.RESULTS else results
    chosen = there(cli.select(models, cache))
    wanted = _levels(levels or ("1,2" if quick else "1,2,3"))
    names = _peers(",".join(QUICK_PEERS if quick else peers.PEERS) if beside is None else beside)
    journal = Journal(
        "lossless",
        {"rows": ("model", "level"), "peers": ("model", "peer")},
        results,
        resume=resume,
        update=update,
        packages=[peers.PEERS[name].distribution for name in names],
        order=_order,
    )
    how: dict[str, Any] = {"limit": limit, "cache": cache}
    for model in chosen:
        for level in wanted:
            key = {"model": model.name, "level": level}
            options = how | {"budget": budget}
            row = journal.measure("rows", key, lossless.measure, model.name, level, **options)
            if row is not None:
                say(" ".join([model.name, f"-O {level}", *_cells(row)]))
        for name in names:
            key = {"model": model.name, "peer": name}
            options = how | {"timed": time_peers}
            row = journal.measure("peers", key, peers.measure, model.name, name, **options)
            if row is not None:
                say(f"{model.name} {name}: {peers.shown(row)} {row.get('failed', '')}")
    shown = {model.name for model in chosen}
    _print(
        [row for row in journal.rows("rows") if row["model"] in shown],
        [row for row in journal.rows("peers") if row["model"] in shown],
        wanted,
    )
    wrote(journal.finish())


def _order(table: str, row: dict[str, Any]) -> tuple[int, int]:
    models = {name: at for at, name in enumerate(load_corpus())}
    places = {name: at for at, name in enumerate(peers.PEERS)}
    place = row["level"] if table == "rows" else places.get(row["peer"], -1)
    return models.get(row["model"], -1), place


def _levels(text: str) -> list[int]:
    try:
        levels = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        levels = [0]
    if not levels or not set(levels) <= set(lossless.LEVELS):
        raise UsageError(f"--levels takes some of {lossless.LEVELS}, comma separated, not {text}")
    return levels


def _peers(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in peers.PEERS:
            raise UsageError(f"there is no peer {name}", hint=f"known are {', '.join(peers.PEERS)}")
    return names


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["error"]]
    before, after = row["nodes"]
    undone = [*row["quarantined"], *row.get("withdrawn", ())]
    return [
        f"{before} → {after}",
        *latency_cells(row["latency"]),
        row["verified"] + (f": {row['reason']}" if row["reason"] else ""),
        ", ".join(undone),
    ]


def _print(
    rows: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], levels: Sequence[int]
) -> None:
    console = Console(width=160, highlight=False)
    console.print(_latencies(rows, levels))
    if found and 1 in levels:
        console.print(_node_counts(rows, found))
    for level in levels:
        console.print(_summary(level, lossless.of_level(rows, level)))
    behind = lossless.larger(rows, found)
    if found and 1 in levels:
        console.print(f"-O 1 leaves more nodes than the smallest peer of {len(behind)} models")
    for model, nodes, best in behind:
        console.print(f"  {model}: {nodes}, {best['peer']} {best['nodes']}")


def _latencies(rows: Sequence[dict[str, Any]], levels: Sequence[int]) -> Table:
    heads = [head for level in levels for head in (f"-O {level}", "nodes", "interval")]
    shown = table("model", *heads, "answers")
    for model in _models(rows):
        cells, answers = [], []
        for level in levels:
            row = _one(rows, model=model, level=level)
            if row is None or "error" in row:
                cells += ["", "", "fails" if row else ""]
                answers.append(row["error"] if row else "not measured")
                continue
            speedup, interval = latency_cells(row["latency"])
            cells += [speedup, f"{row['nodes'][0]} → {row['nodes'][1]}", interval]
            answers.append(row["verified"])
        shown.add_row(model, *cells, ", ".join(dict.fromkeys(answers)))
    return shown


def _node_counts(rows: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> Table:
    names = [name for name in peers.PEERS if any(row["peer"] == name for row in found)]
    shown = table("model", "original", "-O 1", *names)
    for model in _models(rows):
        row = _one(rows, model=model, level=1)
        counts = ["", ""] if row is None or "error" in row else [str(n) for n in row["nodes"]]
        cells = [peers.shown(_one(found, model=model, peer=name)) for name in names]
        shown.add_row(model, *counts, *cells)
    return shown


def _summary(level: int, rows: Sequence[lossless.Row]) -> str:
    mean = lossless.geometric_mean(rows)
    if mean is None:
        return f"-O {level}: nothing was timed"
    timed = lossless.timed(rows)
    worst = min(timed, key=lambda row: row["latency"]["speedup"])
    low, high = worst["latency"]["ci95"]
    agree = sum(row.get("verified") == "ok" for row in rows)
    slower = sum(row["latency"]["verdict"] == "slower" for row in timed)
    gains = lossless.sessions(rows)
    session = ""
    if gains:
        mean_gain = statistics.geometric_mean(gains)
        session = f"; session options, not counted here: {mean_gain:.2f}x on {len(gains)} models"
    return (
        f"-O {level}: geometric mean {mean:.3f}x over {len(timed)} models, {slower} slower, "
        f"least {worst['latency']['speedup']:.3f}x ({low:.3f} to {high:.3f}) {worst['model']}; "
        f"answers agree on {agree} of {len(rows)}{session}"
    )


def _models(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows))


def _one(rows: Iterable[dict[str, Any]], **key: Any) -> dict[str, Any] | None:
    return next((row for row in rows if key.items() <= row.items()), None)
