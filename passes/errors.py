"""The errors that passes raise."""

from __future__ import annotations

from ..backends.errors import OnnxpressError, PassError, UsageError

__all__ = ["OnnxpressError", "PassError", "UsageError"]
