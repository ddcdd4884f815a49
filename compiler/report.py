"""What a run reports, as data; how it is told is :mod:`.report_text`'s."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .manager import PassRecord


@dataclass
class Report:
    """Everything about one compilation, before and after.

    ``bytes`` counts the model's files where they were read or written, else the weights.
    ``macs`` are multiply-accumulates of one run at ``sizes`` of the dynamic dimensions (one sample
    where there are samples, else the smallest inputs that were accepted), ``None`` where shapes are
    unknown. ``verified``, ``latency``, ``search`` and ``session`` say so when they hold nothing:
    their ``status`` is then ``not-run`` or ``not-measured``, with a ``reason``. ``search`` tells
    which rewrites were measured one by one and left out, ``session`` what other session options
    than the default ones gain, apart from ``latency``. ``profile`` holds the time of each operator
    before and after, where it was asked for. ``layout`` is there where models were
    merged: how the ways to lay them out did. ``command`` makes the result again, in a shell; it is
    empty where Python asked for it.
    """

    input: str
    output: str
    target: str
    pipeline: str
    nodes: list[int]
    bytes: list[int]
    macs: list[int | None]
    parameters: list[int]
    passes: list[PassRecord]
    verified: dict[str, Any]
    latency: dict[str, Any]
    search: dict[str, Any]
    session: dict[str, Any]
    seconds: float
    environment: dict[str, Any]
    operators: list[dict[str, int]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    accuracy: dict[str, Any] = field(default_factory=lambda: {"status": "not-asked"})
    layout: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    profile: list[list[dict[str, Any]]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report with the keys that other tools may rely on, ready for ``json.dumps``."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        found["passes"] = [record_json(record) for record in self.passes]
        for name in ("layout", "profile"):
            if not found[name]:
                del found[name]
        return found


def record_json(record: PassRecord) -> dict[str, Any]:
    """One pass's entry; ``declined`` maps each reason to how often it was given."""
    return {
        "name": record.name,
        "options": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in record.options.items()
        },
        "seconds": record.seconds,
        "modified": record.modified,
        "rewritten": record.rewritten,
        "declined": dict(record.declined),
        "status": record.status,
        "reason": record.reason,
        "nodes": list(record.nodes),
        "bytes": list(record.bytes),
        "verified": record.verified,
        "details": record.details,
        "reproduction": record.reproduction,
    }
