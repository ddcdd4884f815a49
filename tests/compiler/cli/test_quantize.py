"""``--refit`` and ``--no-refit``, with `quantize`, with `optimize --quantize` and in recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compiler.cli.runner import Command


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("command", ["quantize", "optimize", "recipe"])
def test_fitting_can_be_left_out(
    onnxpress: Command, models: Path, samples: Path, command: str, refit: bool
) -> None:
    Path("recipe.toml").write_text(f'quantize = "int8"\nrefit = {str(refit).lower()}\n')
    options = {
        "quantize": ["quantize", *(() if refit else ("--no-refit",))],
        "optimize": ["optimize", "--quantize", "int8", *(() if refit else ("--no-refit",))],
        "recipe": ["optimize", "--recipe", "recipe.toml"],
    }[command]

    done = onnxpress(
        *(*options, models / "mnist_cnn_0.onnx", "-o", "q.onnx", "--no-time", "--no-verify"),
        *("--data", samples / "mnist_calibration_nhwc.npz", "--json"),
    )

    assert done.code == 0, done
    names = [one["name"] for one in done.json["passes"]]
    assert "insert-qdq" in names
    assert ("refit" in names) == refit
    assert names.index("equalize") < names.index("insert-qdq")
