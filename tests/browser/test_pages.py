"""HTML pages in a real browser: nothing is loaded, nothing fails, everybody can read them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, store
from onnxpress.compiler.api import optimize
from onnxpress.compiler.write_report import write_report

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
WIDTHS = {"phone": 390, "desk": 1280}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs onnxpress[browser]")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium, such as Debian's package chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    outcome = optimize(ROOT / "benchmarks" / "models" / "mnist_cnn_0.onnx", level=1)
    write_report(outcome.report, folder / "optimize.html")
    found = {
        name: store.load(name)
        for name in page.SUITES
        if store.path_of(name, store.RESULTS).exists()
    }
    (folder / "benchmarks.html").write_text(page.as_html(found), encoding="utf-8")
    return {one.stem: one for one in folder.iterdir()}


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["optimize", "benchmarks"])
def test_a_page_loads_nothing_fails_nowhere_and_is_accessible(
    browser: Any, pages: dict[str, Path], name: str, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    address = pages[name].as_uri()
    opened = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))

    opened.goto(address)
    for details in opened.query_selector_all("summary"):
        details.click()
    faults = axe.Axe().run(opened).response["violations"]

    assert [url for url in asked if url != address] == []
    assert said == []
    assert [
        (one["id"], one["nodes"][0]["html"])
        for one in faults
        if one["impact"] in {"serious", "critical"}
    ] == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()
