"""Raise models to newer versions of the standard operator set."""

from __future__ import annotations

from .raising import raise_opset, signature, standard_version

__all__ = ["raise_opset", "signature", "standard_version"]
