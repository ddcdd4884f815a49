"""Lines of Latin and Chinese text as images, to calibrate and to test a recognizer of text.

``python -m benchmarks text-lines FOLDER`` writes them for ``--data``. Each line has a font, a size,
paper, ink, a small rotation, blur and noise of its own, all of them from its seed. Lines below
:data:`CALIBRATION` are for calibration, those from there on for testing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx_ir as ir
import typer

from onnxpress.backends.base import Feeds, OptimizationLevel, SessionConfig
from onnxpress.backends.ort import session_of

from .corpus import CorpusError
from .decisions import Floats, characters, decoded, fonts, texts
from .printing import say

CALIBRATION, TEST = 64, 200

_HEIGHT = 48
_CHINESE_FONTS = ("wqy-microhei.ttc", "wqy-zenhei.ttc", "gbsn00lp.ttf", "gkai00mp.ttf")
_CHINESE_WORDS = (
    "北京", "上海", "中国", "世界", "人民", "大学", "学生", "老师", "电话", "地址", "时间", "公司",
    "经济", "科学", "技术", "文化", "历史", "图书", "新闻", "天气", "春天", "夏天", "秋天", "冬天",
    "今天", "明天", "早上", "晚上", "火车", "飞机", "汽车", "道路", "桥梁", "河水", "山水", "花园",
    "苹果", "牛奶", "面包", "米饭", "茶叶", "衣服", "红色", "白色", "黑色", "医院", "银行", "商店",
    "市场", "价格", "合同", "发票", "数量", "单位", "日期", "姓名", "号码", "生活", "工作", "问题",
    "方法", "结果", "开始", "完成", "重要", "简单", "快速", "安全", "系统", "数据", "网络", "软件",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """What is written, and how it looks: ``[1, 3, 48, width]`` between -1 and 1."""

    text: str
    image: Floats


@dataclass(frozen=True)
class Lines:
    """Lines as calibration data: one sample at a time, because no two need be equally wide."""

    lines: Sequence[Line]
    name: str = "x"

    def batches(self, size: int) -> Iterator[Feeds]:
        del size
        for line in self.lines:
            yield {self.name: line.image}


def chinese_fonts() -> list[Path]:
    """Those of the Chinese fonts of Debian's packages that are installed."""
    found = {path.name: path for path in Path("/usr/share/fonts").rglob("*.tt[cf]")}
    return [found[name] for name in _CHINESE_FONTS if name in found]


def chinese_texts(count: int, seed: int = 0) -> list[str]:
    """Lines of three to five words, some of them with a number."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words = [str(word) for word in rng.choice(np.array(_CHINESE_WORDS), rng.integers(3, 6))]
        if rng.integers(3) == 0:
            words.insert(int(rng.integers(1, len(words))), str(rng.integers(10, 10_000)))
        found.append("".join(words))
    return found


def rendered(text: str, font: Path, seed: int) -> Floats:
    """``text`` as ``[1, 3, 48, width]`` between -1 and 1, at a size and an angle of its own."""
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    rng = np.random.default_rng(seed)
    face = ImageFont.truetype(str(font), int(rng.integers(18, 44)))
    left, top, right, bottom = face.getbbox(text)
    margin = 0.25 * (bottom - top)
    size = (int(right - left + 4 * margin), int(bottom - top + 2 * margin))
    paper, ink = int(rng.integers(190, 256)), int(rng.integers(0, 90))
    image = Image.new("L", size, paper)
    ImageDraw.Draw(image).text((2 * margin - left, margin - top), text, fill=ink, font=face)
    steepest = np.degrees(0.5 * margin / (size[0] / 2))  # so that no letter leaves the image
    angle = float(rng.uniform(-1, 1) * min(2.0, steepest))
    image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=paper)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.6))))
    width = max(16, round(size[0] * _HEIGHT / size[1]))
    image = image.resize((width, _HEIGHT), Image.Resampling.BILINEAR)
    grey = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(1, 6), (_HEIGHT, width))
    scaled = np.clip(grey, 0, 255) / 127.5 - 1
    return np.repeat(scaled[None, None], 3, axis=1).astype(np.float32)


@cache
def lines(count: int = CALIBRATION + TEST) -> tuple[Line, ...]:
    """Latin and Chinese lines in turns, over all fonts.

    Raises :class:`~benchmarks.corpus.CorpusError` without Pillow or fonts.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise CorpusError(
            "rendering text needs Pillow", hint="pip install -e '.[bench]'"
        ) from error
    latin, chinese = fonts(), chinese_fonts()
    if not latin or not chinese:
        raise CorpusError(
            "there are no fonts for Latin and Chinese text",
            hint="apt-get install fonts-dejavu fonts-liberation fonts-freefont-ttf "
            "fonts-wqy-microhei fonts-wqy-zenhei fonts-arphic-gbsn00lp fonts-arphic-gkai00mp",
        )

    half = (count + 1) // 2
    both = zip(texts(half, seed=7), chinese_texts(half, seed=7), strict=True)
    faces = (latin, chinese)
    made = []
    for at, text in enumerate([text for pair in both for text in pair][:count]):
        face = faces[at % 2]
        made.append(Line(text, rendered(text, face[at // 2 % len(face)], seed=at)))
    return tuple(made)


def calibration() -> Lines:
    """The lines that a recognizer may be calibrated on."""
    return Lines(lines()[:CALIBRATION])


def read(
    model: ir.Model, chosen: Sequence[Line] | None = None, level: OptimizationLevel = "all"
) -> list[str]:
    """What the recognizer reads in each of the lines, the test lines by default."""
    alphabet = characters(model)
    session = session_of(model, SessionConfig(level=level, threads=1))
    name = model.graph.inputs[0].name or ""
    found = []
    for line in lines()[CALIBRATION:] if chosen is None else chosen:
        (scores,) = session.run({name: line.image}).values()
        found.append(decoded(scores[0], alphabet))
    return found


def exact(read_: Sequence[str], chosen: Sequence[Line] | None = None) -> float:
    """How many lines in a hundred were read without an error; blanks do not count."""
    told = [line.text for line in (lines()[CALIBRATION:] if chosen is None else chosen)]
    pairs = zip(told, read_, strict=True)
    return 100 * sum(_tight(one) == _tight(other) for one, other in pairs) / len(told)


def _tight(text: str) -> str:
    return "".join(text.split())


def text_lines_suite(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")],
) -> None:
    """Write the calibration lines for --data, one .npz each, and their texts."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, line in enumerate(calibration().lines):
        np.savez_compressed(folder / f"{at:03}.npz", x=line.image)
    told = "\n".join(line.text for line in calibration().lines)
    (folder / "texts.txt").write_text(told + "\n", encoding="utf-8")
    say(f"wrote {len(calibration().lines)} lines to {folder}")
