"""The contract every pass fulfils: what it is called, what it may change, and what it reports."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Protocol, final

import onnx_ir as ir

from ..backends.base import Array, Session, SessionConfig
from ..backends.data import Data
from ..backends.targets import Target

__all__ = [
    "EXACT",
    "Array",
    "Context",
    "Contract",
    "Pass",
    "Result",
    "SessionFactory",
    "label_of",
    "option_text",
]


@dataclass(frozen=True)
class Contract:
    """What a pass promises about the answers.

    An ``exact`` pass keeps every value up to float rounding; it is checked against the dtype's
    tolerance. An approximate one says in ``changes`` what it may change; it is measured by the
    signal-to-quantization-noise ratio (SQNR) of every float output, and a result below
    ``min_sqnr_db`` decibels counts as wrong, not as approximate.
    """

    exact: bool = True
    changes: str = ""
    min_sqnr_db: float = 0.0


EXACT = Contract()


class SessionFactory(Protocol):
    """Loads a model that is still being rewritten, so that a pass can run it."""

    def __call__(
        self,
        model: ir.Model,
        config: SessionConfig = ...,
        outputs: Sequence[str] | None = ...,
    ) -> Session:
        """A session of ``model`` as it stands now, which stays as it is.

        ``outputs`` names the values of the main graph, intermediate ones as well, that a run
        answers with; by default the graph's own outputs. Raises ``BackendError``.
        """
        ...


def _ort_session(
    model: ir.Model,
    config: SessionConfig = SessionConfig(),  # noqa: B008
    outputs: Sequence[str] | None = None,
) -> Session:
    from ..backends.ort import session_of

    return session_of(model, config, outputs)


def _silent(_stage: str, _done: int, _total: int | None) -> None:
    """Nobody asked for progress."""


@dataclass(frozen=True)
class Context:
    """What a pass may ask for, and nothing else: passes read no global state.

    Attributes:
        target: Where the result will run.
        data: Calibration samples, if the user brought any.
        sessions: Runs the model that is being rewritten.
        seed: The root of every random choice.
        dims: Sizes to assume for named dynamic dimensions.
        progress: Called as ``progress(stage, done, total)``; ``total`` is ``None`` if unknown.
        held: Nodes that a pass does not get to see as what they are, by the pass's pipeline text.
    """

    target: Target = field(default_factory=Target)
    data: Data | None = None
    sessions: SessionFactory = _ort_session
    seed: int = 0
    dims: dict[str, int] = field(default_factory=dict)
    progress: Callable[[str, int, int | None], None] = _silent
    held: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass
class Result(ir.passes.PassResult):
    """What one pass did, and what it declined to do and why.

    ``rewritten`` names the nodes it rewrote, ``declined`` maps the nodes it looked at and left to
    a reason, a sentence for the report. ``details`` holds what else is worth reporting, in
    JSON-ready form (channels kept per group, ranges found, a residual).
    """

    modified: bool = False
    rewritten: list[str] = field(default_factory=list)
    declined: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def rewrote(self, node: ir.Node | str) -> None:
        """Count ``node`` as rewritten, and the model as changed."""
        self.modified = True
        self.rewritten.append(label_of(node))

    def decline(self, node: ir.Node | str, *, because: str) -> None:
        """Keep the reason why ``node``, nearly a match, stays as it is."""
        self.declined[label_of(node)] = because


def label_of(node: ir.Node | str) -> str:
    """What reports call ``node``: its name, else its operator and what it computes."""
    if isinstance(node, str):
        return node
    if node.name:
        return node.name
    output = node.outputs[0].name if node.outputs else None
    return f"{node.op_type} -> {output}" if output else node.op_type


@dataclass(frozen=True)
class Pass(ir.passes.InPlacePass):
    """An in-place rewrite whose dataclass fields are its options.

    A subclass is a frozen dataclass with a kebab-case ``name``. Its fields, all with defaults,
    are at once its Python arguments, its command-line text and its report entry::

        @dataclass(frozen=True)
        class DropDropout(Pass):
            name = "drop-dropout"

            def rewrite(self, model: ir.Model, context: Context) -> Result:
                ...

    Option values are ``bool``, ``int``, ``float``, ``str`` or tuples of ``str``; check them in
    ``__post_init__`` and raise :class:`~onnxpress.backends.errors.UsageError`.
    """

    name: ClassVar[str]
    contract: ClassVar[Contract] = EXACT
    needs_data: ClassVar[bool] = False
    trades: ClassVar[bool] = False
    """Whether it gives one kind of work for another, so that a static cost model has to decide."""
    summary: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = getattr(cls, "name", None)
        if name is not None and not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
            raise TypeError(f"pass name {name!r} of {cls.__qualname__} is not kebab-case")

    def requires_data(self) -> bool:
        """Whether it needs calibration data with these options; ``needs_data`` is the default."""
        return self.needs_data

    @abstractmethod
    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Rewrite ``model`` in place and say what was done and what was declined.

        Raises:
            PassError: The pass cannot do its work at all; the model may be left half rewritten,
                and the manager restores it.
        """

    @final
    def call(self, model: ir.Model) -> Result:
        """Run without a context, as any ``onnx_ir`` pass: ``pass_(model)``."""
        return self.rewrite(model, Context())

    def __str__(self) -> str:
        """The pass as pipeline text: its name and the options that differ from the defaults."""
        changed = [
            f"{option.name}={option_text(getattr(self, option.name))}"
            for option in fields(self)
            if option.default is MISSING or getattr(self, option.name) != option.default
        ]
        return f"{self.name}{{{','.join(changed)}}}" if changed else self.name


def option_text(value: object) -> str:
    """``value`` as pipeline text writes it; the inverse of how pipeline text is read."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{','.join(option_text(item) for item in value)}]"
    if isinstance(value, str) and not re.fullmatch(r"[^\s,{}\[\]\"=\\]+", value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)
