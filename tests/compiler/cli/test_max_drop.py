"""``--max-drop`` on the command line: what is kept is told, and what makes no sense is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compiler.cli.runner import Command


def test_answers_are_held_and_told(onnxpress: Command, models: Path, samples: Path) -> None:
    arguments = (
        *("quantize", models / "mnist_cnn_0.onnx", "-o", "q.onnx", "--no-refit", "--no-time"),
        *(
            "--everywhere",
            "--data",
            samples / "mnist_calibration_nhwc.npz",
            "--metric",
            "sqnr",
            "--max-drop",
        ),
    )

    done = onnxpress(*arguments, "62", "--json")

    assert done.code == 0, done
    accuracy: dict[str, Any] = done.json["accuracy"]
    assert accuracy["status"] == "held"
    assert accuracy["value"] >= 62
    assert 0 < len(accuracy["in_float"]) < len(accuracy["layers"])
    shown = onnxpress(*arguments, "500", "--force")
    assert "nothing is worth quantizing here: all 4 layers would have to stay" in shown.out
    assert shown.code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metric", "sqnr"), "need --max-drop"),
        (("--labels", "labels.npy"), "need --max-drop"),
        (("--max-drop", "0.1", "--metric", "accuracy"), "needs labels"),
        (("--max-drop", "0.1", "--metric", "beauty"), "no metric 'beauty'"),
        (("--max-drop", "0.1", "--metric", "nowhere:f"), "nowhere:f cannot be imported"),
    ],
)
def test_what_makes_no_sense_is_refused(
    onnxpress: Command, models: Path, samples: Path, options: tuple[str, ...], message: str
) -> None:
    np.save("labels.npy", np.arange(512))

    done = onnxpress(
        *("quantize", models / "mnist_cnn_0.onnx", "-o", "q.onnx", "--no-refit", "--no-time"),
        *("--data", samples / "mnist_calibration_nhwc.npz", *options),
    )

    assert done.code not in {0, 1}
    assert message in done.err
    assert not Path("q.onnx").exists()


def test_how_much_stays_is_given_or_looked_for(
    onnxpress: Command, models: Path, samples: Path
) -> None:
    done = onnxpress(
        *("optimize", models / "mnist_cnn_0.onnx", "-o", "p.onnx", "--macs", "0.9", "--no-time"),
        *("--max-drop", "0.1", "--data", samples / "mnist_calibration_nhwc.npz"),
    )

    assert done.code == 2
    assert "only one can be" in done.err
    assert not Path("p.onnx").exists()
