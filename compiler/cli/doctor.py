"""``onnxpress doctor``: what is installed here, what this machine is, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from . import common, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..records import Progress

_PAYS = 1.15
"""The speedup of single operators from which a whole model can be expected to gain."""


def doctor(
    json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: Annotated[bool, common.verbose("what ONNX Runtime was built with")] = False,
    debug: common.Debug = False,
) -> None:
    """Show what is installed, what this machine can do, and what to do about it.

    Runs a few int8 and float16 operators for a second or two to see what they gain.

    Examples:
        onnxpress doctor
    """
    del debug
    volume = common.volume(quiet, verbose)
    with terminal.progress(volume != "quiet" and not json) as progress:
        found = diagnose(progress)
    if json:
        terminal.print_json(found)
    elif volume != "quiet":
        show(terminal.stdout(), found, verbose=volume == "verbose")


def diagnose(progress: Progress) -> dict[str, Any]:
    """Everything that ``doctor`` shows, in JSON-ready form.

    Returns:
        ``environment``; ``providers``: by name ``usable`` and, where not, ``reason`` and ``hint``;
        ``measured``: whether U8S8 saturates, and by how much int8 and float16 operators are faster
        than float32 ones on one thread; ``advice``: what the machine means; ``actions``: what to
        do, with commands.
    """
    from dataclasses import asdict

    from ...backends.environment import advice, environment
    from ...backends.probe import kernel_speeds, u8s8_saturates

    progress("looking at the machine", 0, None)
    machine = environment()
    providers = {name: _state(name) for name in ("cpu", "cuda")}
    progress("timing int8 and float16 operators", 0, None)
    measured = {
        "u8s8_saturates": u8s8_saturates(),
        "speedups": [asdict(speed) for speed in kernel_speeds()],
    }
    return {
        "environment": machine,
        "providers": providers,
        "measured": measured,
        "advice": advice(machine),
        "actions": actions(machine, providers, measured),
    }


def _state(provider: Any) -> dict[str, Any]:
    from ...backends.errors import ProviderUnavailableError
    from ...backends.ort import check_provider

    try:
        check_provider(provider)
    except ProviderUnavailableError as error:
        return {"usable": False, "reason": error.message, "hint": error.hint}
    return {"usable": True}


def actions(
    machine: dict[str, Any], providers: dict[str, Any], measured: dict[str, Any]
) -> list[str]:
    """What to do on this machine, as sentences with commands."""
    int8 = _speedups(measured, "int8")
    found = []
    if min(int8) >= _PAYS:
        safe = ", which keeps weights from saturating" if measured["u8s8_saturates"] else ""
        found.append(
            f"int8 pays here: `onnxpress quantize MODEL -o OUT --data SAMPLES`{safe}, "
            "and read the measured latency at its end"
        )
    elif max(int8) >= _PAYS:
        found.append(
            "int8 pays here for some operators only: quantize, and keep the result only if the "
            "measured latency at its end is better"
        )
    else:
        found.append("int8 does not pay here: quantize for size, or for another machine")
    if max(_speedups(measured, "float16")) < _PAYS:
        found.append("float16 does not pay on this CPU: keep models in float32")
    cuda = providers["cuda"]
    if cuda["usable"]:
        found.append("the GPU is usable: add `--target cuda`, or `--provider cuda` for bench")
    elif machine["gpus"]:
        found.append(f"to use the GPU: {cuda['hint']}")
    return found


def _speedups(measured: dict[str, Any], dtype: str) -> list[float]:
    return [one["speedup"] for one in measured["speedups"] if one["dtype"] == dtype]


def show(console: Console, found: dict[str, Any], *, verbose: bool = False) -> None:
    """Print what :func:`diagnose` found; ``verbose`` adds all that ONNX Runtime was built with."""
    from rich.markup import escape

    machine = found["environment"]
    rows = [(name, escape(text)) for name, text in _facts(machine)]
    if verbose:
        rows.append(("built with", escape(", ".join(machine["providers"]))))
    console.print(terminal.facts(rows))
    console.print("\n[bold]providers[/]")
    states = [(name, _state_text(one, machine)) for name, one in found["providers"].items()]
    console.print(terminal.facts(states))
    console.print("\n[bold]measured here[/], one thread, against float32")
    console.print(_speeds(found["measured"]))
    for title, lines in (("what that means", found["advice"]), ("what to do", found["actions"])):
        console.print(f"\n[bold]{title}[/]")
        console.print(terminal.facts(("•", escape(line)) for line in lines))


def _facts(machine: dict[str, Any]) -> list[tuple[str, str]]:
    cpu = machine["cpu"]
    features = " ".join(cpu["features"]) or "none that matter"
    quota = "" if cpu["quota"] is None else f", limited to {cpu['quota']:g}"
    gpus = [
        f"{gpu['name']}, {gpu['memory_mb']} MB, driver {gpu['driver']}" for gpu in machine["gpus"]
    ]
    return [
        ("CPU", f"{cpu['model']} ({cpu['microarchitecture']})"),
        ("features", features),
        ("cores", f"{cpu['cores']} cores, {cpu['threads']} threads usable{quota}"),
        ("memory", f"{machine['memory_mb'] / 1024:.1f} GB"),
        ("GPUs", "; ".join(gpus) or "none found"),
        ("system", f"{machine['os']}, Python {machine['python']}"),
        ("packages", ", ".join(f"{name} {v}" for name, v in machine["packages"].items())),
    ]


def _state_text(state: dict[str, Any], machine: dict[str, Any]) -> str:
    from rich.markup import escape

    if state["usable"]:
        return "[green]usable[/]"
    if not machine["gpus"]:
        return f"not usable: no NVIDIA GPU found; {escape(state['reason'])}"
    return f"[yellow]not usable[/]: {escape(state['reason'])}"


def _speeds(measured: dict[str, Any]) -> Table:
    types = list(dict.fromkeys(one["dtype"] for one in measured["speedups"]))
    rows: dict[str, dict[str, str]] = {}
    for one in measured["speedups"]:
        rows.setdefault(one["operator"], {})[one["dtype"]] = f"{one['speedup']:.1f}x"
    table = terminal.columns("operator", *types)
    for operator, speeds in rows.items():
        table.add_row(operator, *(speeds.get(dtype, "") for dtype in types))
    return table
