"""One call in a process of its own, with a time limit: a crash or a hang costs one model."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")


class CallError(Exception):
    """The call raised, crashed, or ran out of time; the message says which."""


def apart(function: Callable[..., T], *arguments: Any, limit: float) -> T:
    """``function(*arguments)`` in a fresh process that has ``limit`` seconds.

    Function, arguments and answer travel by pickle. Raises :class:`CallError`.
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
        child.kill()
        child.join()
        receiver.close()
    if not fine:
        raise CallError(answer)
    return answer  # type: ignore[no-any-return]


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        sender.send((True, function(*arguments)))
    except Exception as error:  # noqa: BLE001 - told to the caller
        sender.send((False, f"{type(error).__name__}: {first_line(error)}"))


def first_line(error: Exception) -> str:
    """The first line of the message of ``error``, cut to a hundred characters."""
    return next(iter(str(error).splitlines()), "")[:100]
