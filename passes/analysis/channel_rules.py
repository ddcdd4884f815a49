"""What each operator does to channels: the rules behind :mod:`.channels`.

A rule reads labels from the inputs of its node and writes them on the outputs. Labels that it
meets and does not read are frozen, so a rule needs to handle only the cases it is sure of.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .channel_attention import ATTENTION, MICROSOFT_ATTENTION
from .channel_elementwise import ELEMENTWISE, MICROSOFT_ELEMENTWISE, elementwise
from .channel_flow import Rule
from .channel_layers import LAYERS
from .channel_norms import NORMS
from .channel_parts import PARTS
from .channel_views import VIEWS
from .channels import OpId

__all__ = ["RULES", "elementwise"]

_STANDARD = {**ATTENTION, **ELEMENTWISE, **LAYERS, **NORMS, **PARTS, **VIEWS}
_MICROSOFT = {**MICROSOFT_ATTENTION, **MICROSOFT_ELEMENTWISE}

RULES: Mapping[OpId, Rule] = MappingProxyType(
    {("", name): rule for name, rule in _STANDARD.items()}
    | {("com.microsoft", name): rule for name, rule in _MICROSOFT.items()}
)
"""The rule of each operator. For one of your own pass ``{**RULES, (domain, op_type): rule}``."""
