"""Passes describe themselves from their classes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir
import pytest

from onnxpress.compiler.describe import describe
from onnxpress.passes import registry
from onnxpress.passes.base import Context, Contract, Pass, Result


@dataclass(frozen=True)
class Sample(Pass):
    """Do this,
    and that with ``x`` (:mod:`~..analysis.things`).

    More of it.

    {options}

    The end.
    """

    name: ClassVar[str] = "sample"
    contract: ClassVar[Contract] = Contract(exact=False, changes="drops things")
    needs_data: ClassVar[bool] = True

    kind: Literal["a", "b"] = "a"
    low: float = 0.5
    high: float | None = None
    names: tuple[str, ...] = ()

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        return Result(model)


LIST = """Options:

    - ``kind``: one of
      two.
    - ``low``, ``high``: bounds of ``x``."""
SECTION = """Attributes:
        kind: one of
            two.
        low, high: bounds of ``x``."""


@pytest.mark.parametrize("options", [LIST, SECTION], ids=["list", "section"])
def test_a_pass_with_options(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(registry, "find", lambda name: Sample)
    monkeypatch.setattr(Sample, "__doc__", (Sample.__doc__ or "").format(options=options))
    found = describe("sample")
    assert found["summary"] == "Do this, and that with x (analysis.things)."
    assert found["text"] == (
        "Do this,\nand that with ``x`` (``analysis.things``).\n\nMore of it.\n\nThe end."
    )
    assert (found["contract"], found["changes"]) == ("approximate", "drops things")
    assert found["needs_data"] is True
    assert found["options"] == [
        {"name": "kind", "type": "a|b", "default": "a", "meaning": "one of two."},
        {"name": "low", "type": "float", "default": "0.5", "meaning": "bounds of ``x``."},
        {"name": "high", "type": "float | None", "default": "None", "meaning": "bounds of ``x``."},
        {"name": "names", "type": "tuple[str, ...]", "default": "[]", "meaning": ""},
    ]


@pytest.mark.parametrize("name", registry.builtin_names())
def test_every_option_of_a_built_in_pass_is_explained(name: str) -> None:
    found = describe(name)
    assert found["summary"].endswith(".")
    assert found["origin"] == "built in"
    for option in found["options"]:
        assert option["meaning"], option["name"]


def test_a_pass_may_give_its_own_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find", lambda name: Sample)
    monkeypatch.setattr(Sample, "summary", "do it all")
    assert describe("sample")["summary"] == "Do it all."


def test_a_plain_pass_of_onnx_ir() -> None:
    name = "onnx_ir.passes.common:ClearMetadataAndDocStringPass"
    found = describe(name)
    assert (found["contract"], found["options"], found["origin"]) == ("exact", [], "given by path")
    assert found["summary"]
