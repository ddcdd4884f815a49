"""The one tree of errors, and the exit code that each branch gives the command line.

::

    OnnxpressError                      1
    ├── UsageError                      2   an option or argument that cannot be meant
    │   └── PipelineError               2   pipeline text: unknown pass or option, bad value, syntax
    ├── ModelError                      3   a model that cannot be read or is not valid
    ├── OutputError                     4   a result that cannot be written
    ├── DataError                       5   samples that are missing or do not fit the model
    ├── PassError                       6   a rewrite that failed or may not run here
    ├── BackendError                    7   ONNX Runtime cannot load or run the model
    │   └── ProviderUnavailableError    7   the execution provider is not usable on this machine
    └── VerificationError               8   the result does not give the original's answers

An interrupted run exits with 130, as shells expect of Ctrl-C. The tree starts in the lowest room
because every room raises from it.
"""

from __future__ import annotations

from typing import ClassVar


class OnnxpressError(Exception):
    """The root: a message that says what is wrong and where, and ``hint``: what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OnnxpressError):
    """An option or argument that cannot be meant."""

    exit_code = 2


class PipelineError(UsageError):
    """Pipeline text that names no known pass or option, or is not well formed."""


class ModelError(OnnxpressError):
    """A model that cannot be read or is not valid ONNX."""

    exit_code = 3


class OutputError(OnnxpressError):
    """A result that cannot be written where it was asked for."""

    exit_code = 4


class DataError(OnnxpressError):
    """Samples that are missing, unreadable or do not fit the model's inputs."""

    exit_code = 5


class PassError(OnnxpressError):
    """A rewrite that failed, or that lacks what it needs to run."""

    exit_code = 6


class BackendError(OnnxpressError):
    """ONNX Runtime cannot load or run the model."""

    exit_code = 7


class ProviderUnavailableError(BackendError):
    """The execution provider is not usable on this machine; the hint says what to install."""


class VerificationError(OnnxpressError):
    """The result does not give the original's answers."""

    exit_code = 8
