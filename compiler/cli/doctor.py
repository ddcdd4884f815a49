"""``onnxpress doctor``: what is installed here, what this machine is, and what that means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import common

if TYPE_CHECKING:
    from rich.console import Console


def doctor(json: common.Json = False, debug: common.Debug = False) -> None:
    """Show versions, CPU features, GPUs and providers, and what they mean for int8 and float16.

    Also runs a few int8 and float16 operators for a second or two to see what they gain here.

    [bold]Example[/]

    onnxpress doctor
    """
    del debug
    found = diagnose()
    if json:
        common.print_json(found)
        return
    show(common.stdout(), found)


def diagnose() -> dict[str, Any]:
    """Everything that ``doctor`` shows, in JSON-ready form.

    Returns:
        ``environment``; ``providers``: by name ``usable`` and, where not, ``reason`` and ``hint``;
        ``advice``: sentences; ``measured``: whether U8S8 saturates, and by how much int8 and
        float16 operators are faster than float32 ones on one thread.
    """
    from dataclasses import asdict

    from ...backends.environment import advice, environment
    from ...backends.probe import kernel_speeds, u8s8_saturates

    machine = environment()
    return {
        "environment": machine,
        "providers": {name: _state(name) for name in ("cpu", "cuda")},
        "advice": advice(machine),
        "measured": {
            "u8s8_saturates": u8s8_saturates(),
            "speedups": [asdict(speed) for speed in kernel_speeds()],
        },
    }


def _state(provider: Any) -> dict[str, Any]:
    from ...backends.errors import ProviderUnavailableError
    from ...backends.ort import check_provider

    try:
        check_provider(provider)
    except ProviderUnavailableError as error:
        return {"usable": False, "reason": error.message, "hint": error.hint}
    return {"usable": True}


def show(console: Console, found: dict[str, Any]) -> None:
    """Print what :func:`diagnose` found."""
    from rich.markup import escape
    from rich.table import Table

    machine = found["environment"]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in _facts(machine):
        table.add_row(name, escape(text))
    for name, state in found["providers"].items():
        table.add_row(f"provider {name}", _state_text(state))
    console.print(table)
    for line in (*found["advice"], *_measured(found["measured"])):
        console.print(f"• {escape(line)}")


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


def _state_text(state: dict[str, Any]) -> str:
    from rich.markup import escape

    if state["usable"]:
        return "[green]usable[/]"
    return f"[yellow]not usable[/]: {escape(state['reason'])}\n{escape(state['hint'])}"


def _measured(measured: dict[str, Any]) -> list[str]:
    adds = "saturate" if measured["u8s8_saturates"] else "are exact"
    gains = ", ".join(
        f"{speed['operator']} in {speed['dtype']} {speed['speedup']:.1f}x"
        for speed in measured["speedups"]
    )
    return [
        f"measured: products of unsigned and signed 8-bit values {adds}",
        f"measured against float32, one thread: {gains}",
    ]
