"""Compares rewritten models with their original by running both."""

from .signature import check_signature
from .verification import OutputCheck, Verification
from .verifier import Verifier

__all__ = ["OutputCheck", "Verification", "Verifier", "check_signature"]
