"""Recipes are read, and refused with the key that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxpress.backends.errors import PipelineError, UsageError
from onnxpress.compiler.recipe import Recipe, read_recipe


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_all_keys(tmp_path: Path) -> None:
    text = """
    target = "portable"
    level = 1
    quantize = "int8"
    refit = false
    macs = 0.5
    data = "samples.npz"
    seed = 7
    verify = false
    time = false
    [dims]
    batch = 4
    """
    assert read_recipe(write(tmp_path, text)) == Recipe(
        target="portable",
        level=1,
        quantize="int8",
        refit=False,
        macs=0.5,
        data=str(tmp_path / "samples.npz"),
        seed=7,
        verify=False,
        time=False,
        dims={"batch": 4},
    )


def test_a_function_as_data_is_no_path(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, 'data = "mine:samples"')).data == "mine:samples"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target = ", "is not TOML"),
        ("speed = 9", "unknown key 'speed'"),
        ('level = "two"', "gives level a str: 'two'"),
        ("level = true", "gives level a bool"),
        ("[dims]\nbatch = 0", "gives the dimension 'batch' the size 0"),
        ("[dims]\nbatch = true", "the size True"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_recipe(write(tmp_path, text))


def test_a_missing_file_and_a_bad_pipeline(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the recipe"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(PipelineError, match="no pass 'nothing'"):
        read_recipe(write(tmp_path, 'passes = "nothing"'))
