"""Pipeline text is read, refused with the place of the mistake, and printed back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.backends.errors import PipelineError, UsageError
from onnxpress.backends.targets import Target
from onnxpress.compiler.api import optimize
from onnxpress.compiler.pipeline import Fixpoint, Step, as_pipeline, parse, preset
from onnxpress.passes import registry
from onnxpress.passes.base import Context, Pass, Result


@dataclass(frozen=True)
class Sample(Pass):
    """A pass with an option of every kind."""

    name: ClassVar[str] = "sample"
    ratio: float = 0.5
    count: int = 1
    on: bool = False
    mode: Literal["fast", "slow"] = "fast"
    names: tuple[str, ...] = ()
    label: str = "x"
    limit: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise UsageError("ratio is between 0 and 1", hint="try 0.5")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        return Result(model)


@pytest.fixture(autouse=True)
def _register(monkeypatch: pytest.MonkeyPatch) -> None:
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda name: Sample if name == "sample" else find(name))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sample",
        "sample{ratio=0.25,count=3,on=true,mode=slow,names=[a,/b/*],label=y,limit=7}",
        'sample{label="a b, \\"c\\" \\\\ {}"}',
        "fixpoint{sample,sample{count=2}},sample",
    ],
)
def test_text_comes_back(text: str) -> None:
    assert str(parse(text)) == text


def test_blanks_do_not_matter_and_defaults_are_not_printed() -> None:
    assert str(parse(" sample { count = 1 , on = TRUE } , fixpoint { sample } ")) == (
        "sample{on=true},fixpoint{sample}"
    )


def test_values_get_the_type_that_the_option_declares() -> None:
    (step,) = parse("sample{ratio=1,count=3,names=solo,label=7,limit=2}")
    assert isinstance(step, Step)
    assert step.run == Sample(ratio=1.0, count=3, names=("solo",), label="7", limit=2)
    assert step.all_options()["mode"] == "fast"


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("sample,", "expected the name of a pass", 8),
        ("sample sample", "unexpected 's'", 8),
        ("sample{", "expected the name of an option", 8),
        ("sample{count}", "expected '='", 13),
        ("sample{count=}", "expected a value", 14),
        ("sample{count=1", "expected ',', found the end", 15),
        ('sample{label="open}', 'expected a closing "', 14),
        ("fixpoint{sample", "expected '}', found the end", 16),
        ("fixpoint,sample", "expected '{', found ','", 9),
        ("sample{names=[a}", "expected ',', found '}'", 16),
        ("sample}", "unexpected '}'", 7),
        ("sample{wrong=1}", "has no option 'wrong'", 8),
        ("sample{count=1,count=2}", "given twice", 16),
        ("sample{count=1.5}", "is a whole number, not '1.5'", 14),
        ("sample{ratio=many}", "is a number, not 'many'", 14),
        ("sample{on=maybe}", "is true or false, not 'maybe'", 11),
        ("sample{mode=sideways}", "is one of fast, slow, not 'sideways'", 13),
        ("sample{count=[1]}", "takes one value, not a list", 14),
        ("sample{ratio=2}", "ratio is between 0 and 1", 1),
        ("sampel", "no pass 'sampel'", 1),
        ("no.such.module:Pass", "cannot be loaded", 1),
        ("onnx_ir:Model", "is not a pass class", 1),
    ],
)
def test_a_mistake_is_shown_with_its_place(text: str, message: str, column: int) -> None:
    with pytest.raises(PipelineError) as caught:
        parse(text)
    shown = str(caught.value)
    assert message in shown
    assert f"at column {column}" in shown
    _, quoted, caret = shown.splitlines()
    assert quoted == f"  {text}"
    assert caret.index("^") == column + 1


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(PipelineError) as caught:
        parse("fold-batchnorm")
    assert caught.value.hint == "did you mean 'fold-batch-norm'?"


def test_a_plain_onnx_ir_pass_is_named_by_its_path() -> None:
    text = "onnx_ir.passes.common:ClearMetadataAndDocStringPass"
    (step,) = parse(text)
    assert isinstance(step, Step)
    assert isinstance(step.run, common_passes.ClearMetadataAndDocStringPass)
    assert str(parse(text)) == text
    sized = "onnx_ir.passes.common:DeduplicateHashedInitializersPass{size_limit=1024}"
    assert str(parse(sized)) == sized


def test_passes_become_a_pipeline() -> None:
    pipeline = as_pipeline([Sample(count=2), common_passes.TopologicalSortPass()])
    first, second = pipeline.steps()
    assert str(first) == "sample{count=2}"
    assert second.name.endswith(":TopologicalSortPass")
    assert as_pipeline(pipeline) is pipeline


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("target", ["portable", "cpu", "cuda"])
def test_presets_are_pipelines(level: int, target: Literal["portable", "cpu", "cuda"]) -> None:
    pipeline = preset(level, Target(target))
    assert str(parse(str(pipeline))) == str(pipeline)
    assert bool(list(pipeline.steps())) == (level > 0)
    names = {step.name for step in pipeline.steps()}
    assert ("simplify-with-onnxsim" in names) == (level >= 2 and target != "portable")


def test_level_1_stores_weights_and_says_how_large_they_are() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[N,200] x) => (float[N,200] y) {
      shape = Constant <value = int64[2] {200, 200}> ()
      w = ConstantOfShape (shape)
      y = MatMul (x, w)
    }
    """
    for level, nodes, warnings in [(1, 1, 1), (2, 2, 0)]:
        report = optimize(onnx.parser.parse_model(text), level=level, verify=False).report
        assert report.nodes == [2, nodes]
        assert len(report.warnings) == warnings
        assert all("160.0 kB larger" in warning for warning in report.warnings)


def test_there_is_no_level_four() -> None:
    with pytest.raises(UsageError, match="level 4"):
        preset(4, Target())


_TEXT = st.text(max_size=12)
_PASS = st.builds(
    Sample,
    ratio=st.floats(0, 1),
    count=st.integers(-99, 99),
    on=st.booleans(),
    mode=st.sampled_from(["fast", "slow"]),
    names=st.lists(_TEXT.filter(bool), max_size=3).map(tuple),
    label=_TEXT,
)


@given(st.lists(_PASS, max_size=4))
def test_every_pipeline_survives_its_own_text(passes: list[Sample]) -> None:
    text = str(as_pipeline(passes))
    # The autouse fixture is function-scoped, so the registry is patched here by hand.
    find = registry.find
    registry.find = lambda name: Sample if name == "sample" else find(name)
    try:
        read = [step.run for step in parse(text).steps()]
    finally:
        registry.find = find
    assert read == passes


def test_groups_nest() -> None:
    (group,) = parse("fixpoint{fixpoint{sample}}")
    assert isinstance(group, Fixpoint)
    assert [step.name for step in group.steps.steps()] == ["sample"]
