"""Each command does its work on the shipped models, and prints what it promises."""

from __future__ import annotations

import hashlib
import html
import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.compiler.cli.runner import Command

REPORT_KEYS = {
    *("input", "output", "target", "nodes", "bytes", "macs", "parameters"),
    *("passes", "verified", "seconds", "environment"),
}
PASS_KEYS = {"name", "options", "seconds", "modified", "rewritten", "declined", "status"}


def top1(path: Path, samples: Path, layout: str) -> float:
    """The share of the test digits that the model names, in percent."""
    digits = np.load(samples / "mnist_test.npz")
    images = digits["images"].astype(np.float32) / 255
    images = images[:, None] if layout == "nchw" else images[..., None]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: images})
    return float((answer.argmax(axis=1) == digits["labels"]).mean() * 100)


@pytest.mark.parametrize("level", ["1", "2"])
def test_optimize_folds_every_batch_norm_and_keeps_the_answers(
    onnxpress: Command, models: Path, level: str
) -> None:
    model = models / "mnist_resnet.onnx"
    done = onnxpress("optimize", model, "-o", "out.onnx", "-O", level, "--json", "--no-time")
    assert done.code == 0, done
    assert done.err == ""
    report = done.json
    assert report.keys() >= REPORT_KEYS
    assert all(one.keys() >= PASS_KEYS for one in report["passes"])
    assert report["verified"]["status"] == "ok"
    assert report["latency"] == {"status": "not-measured", "reason": "timing was turned off"}
    assert [one["name"] for one in report["passes"] if one["status"] == "quarantined"] == []
    operators = [node.op_type for node in onnx.load("out.onnx").graph.node]
    assert "BatchNormalization" not in operators
    assert report["nodes"][1] == len(operators)
    assert report["bytes"] == [model.stat().st_size, Path("out.onnx").stat().st_size]


def test_optimize_prints_what_it_did(onnxpress: Command, models: Path) -> None:
    done = onnxpress(
        *("optimize", models / "mnist_resnet.onnx", "-o", "out.onnx", "-v", "--threads", "1"),
        *("--report", "r.json", "--report", "r.md", "--report", "r.html"),
    )
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert any(line.startswith("fold-affine") and " ok" in line for line in lines)
    assert any(line.startswith("answers  agree (") for line in lines)
    (latency,) = [line for line in lines if line.startswith("latency")]
    assert "95% interval" in latency
    assert "1 thread" in latency
    assert any(line.startswith("wrote    out.onnx in ") for line in lines)
    assert lines[-1].rstrip() == "report   r.json, r.md, r.html"
    command = json.loads(Path("r.json").read_text(encoding="utf-8"))["command"]
    assert shlex.split(command)[:3] == ["onnxpress", "optimize", str(models / "mnist_resnet.onnx")]
    assert f"`{command}`" in Path("r.md").read_text(encoding="utf-8")
    assert html.escape(command) in Path("r.html").read_text(encoding="utf-8")
    assert "MACs at batch=1" in lines
    assert "  evaluated  2" in [line.rstrip() for line in lines]
    assert json.loads(Path("r.json").read_text(encoding="utf-8"))["latency"]["status"] == "measured"
    assert Path("r.md").exists()
    assert Path("r.html").exists()


def test_passes_that_found_nothing_take_one_line(onnxpress: Command, models: Path) -> None:
    arguments = ("optimize", models / "mnist_resnet.onnx", "-o", "out.onnx", "--no-time")
    out = onnxpress(*arguments).out
    lines, text = out.splitlines(), " ".join(out.split())  # a long list takes several lines
    unchanging = text.partition("no change: ")[2].partition(" before ")[0].split(", ")
    assert {"cleanup", "simplify-with-onnxsim"} <= set(unchanging)
    assert not any(line.startswith("cleanup") for line in lines)
    verbose = onnxpress(*arguments, "-v").out.splitlines()
    assert sum(line.startswith("cleanup") for line in verbose) >= 2


def test_macs_are_those_of_one_sample(onnxpress: Command, models: Path, samples: Path) -> None:
    done = onnxpress(
        *("optimize", models / "mnist_resnet.onnx", "-o", "o.onnx", "-O", "0", "--no-time"),
        *("--data", samples / "mnist_calibration_nchw.npz", "--json"),
    )
    assert done.json["sizes"] == {"batch": 1}
    assert done.json["macs"] == [20_183_936, 20_183_936]


def test_quiet_prints_nothing(onnxpress: Command, models: Path) -> None:
    done = onnxpress("optimize", models / "mnist_cnn_0.onnx", "-o", "o.onnx", "-q", "--no-time")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_the_command_line_goes_before_the_recipe(onnxpress: Command, models: Path) -> None:
    Path("recipe.toml").write_text(
        'passes = "fold-batch-norm"\nseed = 3\ntime = false\n[dims]\nbatch = 2\n', encoding="utf-8"
    )
    model = models / "mnist_resnet.onnx"
    arguments = ("optimize", model, "-o", "out.onnx", "--recipe", "recipe.toml", "--json")
    assert onnxpress(*arguments).json["pipeline"] == "fold-batch-norm"
    done = onnxpress(*arguments, "--force", "--passes", "cleanup")
    assert done.json["pipeline"] == "cleanup"
    assert done.json["verified"]["sizes"][0] == {"batch": 2}


def test_quantize_keeps_top1(onnxpress: Command, models: Path, samples: Path) -> None:
    done = onnxpress(
        *("quantize", models / "mnist_resnet.onnx", "-o", "q.onnx", "--no-time", "--json"),
        *("--data", samples / "mnist_calibration_nchw.npz"),
    )
    assert done.code == 0, done
    assert done.json["verified"]["status"] == "ok"
    assert done.json["verified"]["exact"] is False
    assert Path("q.onnx").stat().st_size < 0.4 * (models / "mnist_resnet.onnx").stat().st_size
    float_top1 = top1(models / "mnist_resnet.onnx", samples, "nchw")
    assert top1(Path("q.onnx"), samples, "nchw") >= float_top1 - 0.5


def test_prune_to_half_keeps_top1(onnxpress: Command, models: Path, samples: Path) -> None:
    done = onnxpress(
        *("prune", models / "mnist_cnn_0.onnx", "-o", "p.onnx", "--macs", "0.5", "--no-time"),
        *("--data", samples / "mnist_calibration_nhwc.npz", "--json"),
    )
    assert done.code == 0, done
    before, after = done.json["macs"]
    assert after <= 0.5 * before
    float_top1 = top1(models / "mnist_cnn_0.onnx", samples, "nhwc")
    assert top1(Path("p.onnx"), samples, "nhwc") >= float_top1 - 1.5


def test_all_of_it_in_a_row(onnxpress: Command, models: Path, samples: Path) -> None:
    pipeline = "fold-batch-norm,prune-channels{macs=0.57},insert-qdq"
    done = onnxpress(
        *("optimize", models / "mnist_resnet.onnx", "-o", "all.onnx", "--passes", pipeline),
        *("--data", samples / "mnist_calibration_nchw.npz", "--json", "--no-time"),
    )
    assert done.code == 0, done
    assert [(one["name"], one["status"]) for one in done.json["passes"]] == [
        ("fold-batch-norm", "ok"),
        ("prune-channels", "ok"),
        ("insert-qdq", "ok"),
    ]
    assert done.json["pipeline"] == pipeline
    float_top1 = top1(models / "mnist_resnet.onnx", samples, "nchw")
    assert top1(Path("all.onnx"), samples, "nchw") >= float_top1 - 2.0


def test_merge_then_compress(onnxpress: Command, models: Path, samples: Path) -> None:
    members = [models / f"mnist_cnn_{index}.onnx" for index in range(4)]
    data = samples / "mnist_calibration_nhwc.npz"
    done = onnxpress("merge", *members, "-o", "merged.onnx", "--no-time", "--json")
    assert done.code == 0, done
    assert done.json["verified"]["status"] == "ok"
    alone = [top1(member, samples, "nhwc") for member in members]
    merged = top1(Path("merged.onnx"), samples, "nhwc")
    assert merged > np.mean(alone)
    done = onnxpress(
        *("optimize", "merged.onnx", "-o", "small.onnx", "--data", data, "--json", "--no-time"),
        *("--passes", "fold-batch-norm,prune-channels{macs=0.5},insert-qdq"),
    )
    assert done.code == 0, done
    assert [one["status"] for one in done.json["passes"][1:]] == ["ok", "ok"]
    assert top1(Path("small.onnx"), samples, "nhwc") >= merged - 2.0


@pytest.mark.parametrize("combine", ["weighted", "stack"])
def test_merge_fits_to_labels(
    onnxpress: Command, models: Path, samples: Path, combine: str
) -> None:
    members = [models / "mnist_cnn_0.onnx", models / "mnist_cnn_3.onnx"]
    with np.load(samples / "mnist_test.npz") as digits:
        np.save("labels.npy", digits["labels"][:100])
        pixels = (digits["images"][:100, ..., None] / 255).astype(np.float32)
    np.save("image.npy", pixels)
    done = onnxpress(
        *("merge", *members, "-o", "m.onnx", "-O", "0", "--combine", combine, "--json"),
        *("--data", "image.npy", "--labels", "labels.npy", "--uncertainty", "--no-time"),
        *("--map", "mnist_cnn_3:image=image"),
    )
    assert done.code == 0, done
    names = ["probabilities", "probabilities/variance", "probabilities/disagreement"]
    session = ort.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == names
    (answer, *_) = session.run(None, {"image": pixels})
    right = answer.argmax(-1) == np.load("labels.npy")
    assert right.mean() > 0.95
    assert any("fitted weights" in text for text in done.json["warnings"]) == (
        combine == "weighted"
    )


def test_merge_stacks_where_asked_to(onnxpress: Command, models: Path) -> None:
    members = [models / f"mnist_cnn_{index}.onnx" for index in range(4)]
    done = onnxpress(
        *("merge", *members, "-o", "m.onnx", "--layout", "stacked", "--no-time", "--json")
    )
    assert done.code == 0, done
    assert done.json["layout"]["chosen"] == "stacked"
    assert done.json["verified"]["status"] == "ok"
    assert done.json["nodes"][1] < 20


def test_merge_makes_a_soup_only_of_what_shares_a_basin(
    onnxpress: Command, models: Path, samples: Path
) -> None:
    members = [models / f"mnist_cnn_{index}.onnx" for index in range(2)]
    data = ("--data", samples / "mnist_calibration_nhwc.npz", "--no-time")
    soup = ("merge", *members, "-o", "m.onnx", "--combine", "soup", *data)
    done = onnxpress(*soup)
    assert done.code == 2
    assert "do not share a basin: the soup scores" in done.err
    done = onnxpress(*soup, "--force-soup", "--json")
    assert done.code == 0, done
    assert done.json["bytes"][1] < done.json["bytes"][0] * 0.6


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--batch", "1,x"], 2, "whole numbers above 0"),
        (["--combine", "stack"], 2, "--labels"),
        (["--map", "image"], 2, "MODEL:INPUT=SHARED"),
        (["--combine", "stack", "--data", "nowhere.npz", "--labels", "nowhere.npy"], 5, "nowhere"),
        (["--combine", "weighted", "--weights", "0.5,x"], 2, "numbers with commas"),
        (["--combine", "weighted"], 2, "weight"),
        (["--combine", "weighted", "--weights", "1"], 2, "weight"),
        (["--combine", "detections"], 2, "none of them is boxes"),
        (["--nms", "0.5"], 2, "only detections"),
        (["--combine", "soup", "--nms", "0.5", "--uncertainty"], 2, "--uncertainty and --nms"),
        (["--combine", "soup", "--layout", "stacked"], 2, "a soup is one model"),
        (["--combine", "detections", "--nms", "2"], 2, "from 0 to 1"),
        (["--combine", "detections", "--least-score", "0.1"], 2, "belong to --nms"),
    ],
)
def test_merge_refuses(
    onnxpress: Command, models: Path, arguments: list[str], code: int, text: str
) -> None:
    members = [models / "mnist_cnn_0.onnx", models / "mnist_cnn_1.onnx"]
    done = onnxpress("merge", *members, "-o", "m.onnx", *arguments)
    assert done.code == code, done
    assert text in done.err
    assert onnxpress("merge", members[0], "-o", "m.onnx").code == 2


def test_inspect(onnxpress: Command, models: Path) -> None:
    model = models / "mnist_resnet.onnx"
    facts = onnxpress("inspect", model, "--json").json
    assert facts.keys() >= {
        *("nodes", "parameters", "bytes", "macs", "opset", "ir_version", "producer"),
        *("inputs", "outputs", "operators", "warnings"),
    }
    assert facts["bytes"] == model.stat().st_size
    assert facts["operators"]["BatchNormalization"] == 15
    done = onnxpress("inspect", model)
    assert "image: float32 [batch, 1, 28, 28]" in done.out or "image: float" in done.out
    assert "BatchNormalization 15" in done.out
    assert "dynamic     batch" in done.out
    assert facts["dynamic"] == ["batch"]
    assert "opsets      ai.onnx 17" in onnxpress("inspect", model, "-v").out
    assert onnxpress("inspect", model, "-q").out == ""


def test_inspect_tells_what_becomes_of_a_quantized_model(
    onnxpress: Command, models: Path, tmp_path: Path
) -> None:
    model = models / "mnist_cnn_0.onnx"
    data = models.parent / "data/mnist_calibration_nhwc.npz"
    passes = "insert-qdq{samples=64,saturation=ignore}"
    done = onnxpress(
        *(
            "optimize",
            model,
            "-o",
            tmp_path / "q.onnx",
            "--passes",
            passes,
            "--data",
            data,
            "--no-time",
        )
    )
    assert done.code == 0, done
    command = ("inspect", tmp_path / "q.onnx", "--quantization", "--target", "cpu:haswell")

    found = onnxpress(*command, "--json").json["quantization"]
    assert found["confirmed"]
    assert found["kernels"] == {"QGemm": 2, "QLinearConv": 2} == found["found"]
    assert all(group["kernel"] for group in found["groups"])
    assert sum(group["saturating"] for group in found["groups"]) > 100

    done = onnxpress(*command)
    assert "ONNX Runtime makes just these" in done.out
    assert "output channels can overflow on the target" in done.out
    assert "can overflow" not in onnxpress(*command[:-1], "cpu:zen4").out
    assert "QLinearConv" in onnxpress(*command, "--verbose").out
    costs = onnxpress(*command, "--data", data, "--json").json["quantization"]["saturation_db"]
    assert 15 < costs["probabilities"] < 50
    assert "dB of signal" in onnxpress(*command, "--data", data).out
    exact = onnxpress(*command[:-1], "cpu:zen4", "--data", data, "--json").json["quantization"]
    assert exact["saturation_db"] == {"probabilities": None}
    assert onnxpress(*command[:-1], "cpu:z80").code == 2
    assert "no operator" in onnxpress("inspect", model, "--quantization").out


def test_compare_says_equal_or_how_far(onnxpress: Command, models: Path) -> None:
    first, second = models / "mnist_cnn_0.onnx", models / "mnist_cnn_1.onnx"
    same = onnxpress("compare", first, first, "--json")
    assert same.code == 0
    assert same.json["equal"] is True
    other = onnxpress("compare", first, second, "--json")
    assert other.code == 8
    assert other.json["equal"] is False
    (output,) = other.json["outputs"].values()
    assert output.keys() >= {"max_abs", "max_rel", "sqnr_db", "cosine", "top1_agreement"}
    assert output["max_abs"] > 0.01
    shown = onnxpress("compare", first, second, "-v")
    assert shown.code == 8
    assert "verdict            not equal within the tolerance of the type: output" in shown.out
    assert "at                 batch=1" in shown.out
    quiet = onnxpress("compare", first, second, "-q")
    assert (quiet.code, quiet.out) == (8, "")


def test_compare_says_of_no_output_that_did_not_run_that_it_is_equal(
    onnxpress: Command, models: Path
) -> None:
    done = onnxpress("compare", models / "mnist_resnet.onnx", models / "mnist_cnn_0.onnx")
    assert done.code == 8
    (row,) = [line.split() for line in done.out.splitlines() if line.startswith("logits")]
    assert row == ["logits", "not", "run"]


WRONG_PASS = """
from dataclasses import dataclass
from typing import ClassVar
import onnx_ir as ir
from onnxpress import Context, Pass, Result

@dataclass(frozen=True)
class ForgetRelu(Pass):
    name: ClassVar[str] = "forget-relu"
    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        for node in model.graph:
            if node.op_type == "Relu":
                node.outputs[0].replace_all_uses_with(node.inputs[0])
                model.graph.remove(node, safe=True)
                result.rewrote(node)
        return result
"""


def test_a_wrong_pass_is_caught_quarantined_and_named(
    onnxpress: Command, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong_pass.py").write_text(WRONG_PASS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = models / "mnist_resnet.onnx"
    text = "cleanup,wrong_pass:ForgetRelu,fold-batch-norm"

    done = onnxpress(
        *("optimize", model, "-o", "out.onnx", "--passes", text, "--no-time", "--json"),
        *("--reproduce", "repro"),
    )
    assert done.code == 0, done
    statuses = {one["name"]: one["status"] for one in done.json["passes"]}
    assert statuses["wrong_pass:ForgetRelu"] == "quarantined"
    assert statuses["fold-batch-norm"] == "ok"
    assert done.json["verified"]["status"] == "ok"
    assert any("wrong_pass:ForgetRelu was wrong" in one for one in done.json["warnings"])
    shown = onnxpress("optimize", model, "-o", "out.onnx", "--passes", text, "--no-time")
    assert "quarantined" in shown.out
    assert shown.err.startswith("warning: wrong_pass:ForgetRelu was wrong and is undone: output")
    assert len(list(Path("repro").iterdir())) == 1

    strict = onnxpress("optimize", model, "-o", "s.onnx", "--passes", text, "--strict")
    assert strict.code == 8
    assert not Path("s.onnx").exists()

    found = onnxpress("bisect", model, "--passes", text, "--reduce", "small.onnx", "--json").json
    assert (found["status"], found["guilty"]) == ("found", "wrong_pass:ForgetRelu")
    before, after = found["reduced"]["nodes"]
    assert after < before
    assert Path("small.onnx").exists()
    told = onnxpress("bisect", model, "--passes", text, "-v").out
    assert "guilty       wrong_pass:ForgetRelu" in told
    assert "comparisons  " in told
    clean = onnxpress("bisect", model, "--passes", "cleanup,fold-batch-norm")
    assert "no pass changes the answers" in clean.out
    assert onnxpress("bisect", model, "--passes", "cleanup", "-q").out == ""


def test_passes_are_listed_and_shown(onnxpress: Command) -> None:
    names = [one["name"] for one in onnxpress("passes", "--json").json["passes"]]
    assert {"fold-constants", "fold-batch-norm", "cleanup", "simplify-with-onnxsim"} <= set(names)
    assert {"insert-qdq", "prune-channels"} <= set(names)
    listed = onnxpress("passes").out
    assert all(name in listed for name in names)
    assert "Approximate, needs data." in listed
    assert "max_growth=" not in listed
    assert "max_growth=" in onnxpress("passes", "-v").out
    assert onnxpress("passes", "-q").out == ""
    shown = onnxpress("passes", "prune-channels").out
    assert shown.startswith("prune-channels  approximate: removes channels")
    assert "``" not in shown
    assert ":mod:" not in shown
    (macs,) = [line for line in shown.splitlines() if line.startswith("macs ")]
    assert " ".join(macs.split()) == "macs 0.5 the fraction to keep, above 0 and at most 1."
    missing = onnxpress("passes", "prune-chanels")
    assert missing.code == 2
    assert "did you mean 'prune-channels'?" in missing.err


def test_bench(onnxpress: Command, models: Path) -> None:
    first, second = models / "mnist_cnn_0.onnx", models / "mnist_cnn_1.onnx"
    done = onnxpress("bench", first, second, "--seconds", "0.2", "--threads", "1", "--json")
    assert done.code == 0, done
    found = done.json
    assert found.keys() >= {"models", "pairs", "environment"}
    for model in found["models"]:
        assert model.keys() >= {
            *("path", "median_ms", "p10_ms", "p90_ms", "p99_ms", "runs", "peak_rss_mb")
        }
    (pair,) = found["pairs"]
    assert pair.keys() >= {"baseline", "candidate", "speedup", "ci95", "verdict"}
    shown = onnxpress("bench", first, "--seconds", "0.2", "--profile")
    assert shown.code == 0, shown
    assert "Conv" in shown.out


def test_doctor(onnxpress: Command) -> None:
    facts = onnxpress("doctor", "--json").json
    assert "onnxruntime" in json.dumps(facts)
    assert "int8" in onnxpress("doctor").out


def test_cuda_is_refused_where_it_cannot_run(onnxpress: Command, models: Path) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this machine has the CUDA provider")
    model = models / "mnist_cnn_0.onnx"
    for command in (
        ["optimize", model, "-o", "o.onnx", "--target", "cuda"],
        ["bench", model, "--provider", "cuda"],
    ):
        done = onnxpress(*command)
        assert done.code == 7, done
        assert "onnxpress[gpu]" in done.err


def test_version_and_help(onnxpress: Command) -> None:
    import onnxpress as package

    assert onnxpress("--version").out == f"onnxpress {package.__version__}\n"
    assert "optimize" in onnxpress("--help").out
    assert "--passes" in onnxpress("optimize", "--help").out


def test_a_fraction_that_cannot_be_reached_is_an_error(
    onnxpress: Command, models: Path, samples: Path
) -> None:
    done = onnxpress(
        *("prune", models / "mnist_cnn_0.onnx", "-o", "p.onnx", "--macs", "0.001", "--no-time"),
        *("--data", samples / "mnist_calibration_nhwc.npz"),
    )
    assert done.code == 6, done
    assert "prune-channels did not work" in done.err
    assert not Path("p.onnx").exists()


def test_provenance_is_stamped_on_demand_and_shown(onnxpress: Command, models: Path) -> None:
    model = models / "mnist_resnet.onnx"
    for name in ("a.onnx", "b.onnx"):
        done = onnxpress("optimize", model, "-o", name, "-O", "1", "--no-time", "--provenance")
        assert done.code == 0, done
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    security = onnxpress("inspect", "a.onnx", "--security", "--json").json["security"]
    told = security["provenance"]
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert json.loads(told["inputs"]) == {"mnist_resnet.onnx": digest}
    assert told["verified"] == "ok"
    assert "fold-affine" in told["passes"]
    assert security["findings"] == []
    shown = onnxpress("inspect", "a.onnx", "--security").out
    assert "sha256" in shown
    assert "findings" in shown
    plain = onnxpress("inspect", model, "--json").json
    assert "security" not in plain
