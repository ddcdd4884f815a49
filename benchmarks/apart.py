"""One call in a process of its own, with a time limit: a crash or a hang costs one case."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")


class CallError(Exception):
    """The call raised, crashed, or ran out of time; the message says which."""


def apart(function: Callable[..., T], *arguments: Any, limit: float) -> T:
    """``function(*arguments)`` in a fresh process that has ``limit`` seconds.

    It ends with whatever it started itself, and with this process. Function, arguments and answer
    travel by pickle. Raises :class:`CallError`.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, arguments))
    child.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            raise CallError(f"no answer within {limit:g} s")
        fine, answer = receiver.recv()
    except EOFError:
        child.join()
        raise CallError(f"the process ended with code {child.exitcode}") from None
    finally:
        _end(child.pid)
        child.kill()
        child.join()
        receiver.close()
    if not fine:
        raise CallError(answer)
    return answer  # type: ignore[no-any-return]


def row_apart(
    function: Callable[..., dict[str, Any]], *arguments: Any, limit: float
) -> dict[str, Any]:
    """The row that :func:`apart` gives, or one whose ``error`` says why there is none."""
    try:
        return apart(function, *arguments, limit=limit)
    except CallError as error:
        return {"error": str(error)}


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        sender.send((True, function(*arguments)))
    except Exception as error:  # noqa: BLE001 - told to the caller
        sender.send((False, f"{type(error).__name__}: {first_line(error)}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _end(os.getpid())


def _end(pid: int | None) -> None:
    """Kill the process ``pid``, if it got as far as leading a group, with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        if pid is not None:
            os.killpg(pid, signal.SIGKILL)


def first_line(error: Exception) -> str:
    """The first line of the message of ``error``, cut to a hundred characters."""
    return next(iter(str(error).splitlines()), "")[:100]
