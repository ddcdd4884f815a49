"""The rooms, their links, the build table and the direction of imports agree."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("backends", "passes", "compiler")  # lowest first


def pyproject() -> dict[str, dict[str, dict[str, object]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_stands_at_the_root_and_is_linked_into_the_package(room: str) -> None:
    link = ROOT / "src" / "onnxpress" / room
    assert link.is_symlink()
    assert link.resolve() == ROOT / room
    assert not link.readlink().is_absolute()


def test_the_build_table_names_every_room() -> None:
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    wheel = hatch["build"]["targets"]["wheel"]
    assert sorted(wheel["only-include"]) == sorted(["src/onnxpress", *ROOMS])
    assert wheel["sources"] == {
        "src/onnxpress": "onnxpress",
        **{room: f"onnxpress/{room}" for room in ROOMS},
    }
    assert sorted(hatch["build"]["exclude"]) == sorted(f"/src/onnxpress/{room}" for room in ROOMS)


def room_files() -> Iterator[tuple[str, Path]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield room, path


def imported_rooms(room: str, path: Path) -> Iterator[tuple[int, str]]:
    """Every room that ``path`` imports from, with the line."""
    package = ["onnxpress", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = node.module.split(".") if node.module else []
            targets = [[*base, *module, alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] in ROOMS:
                yield node.lineno, f"absolute {target[0]}"
            if target[0] == "onnxpress" and len(target) > 1 and target[1] in ROOMS:
                yield node.lineno, target[1]


def test_imports_go_one_way() -> None:
    wrong = []
    seen = 0
    for room, path in room_files():
        for line, imported in imported_rooms(room, path):
            seen += 1
            if imported.startswith("absolute") or ROOMS.index(imported) > ROOMS.index(room):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
    assert wrong == []
    assert seen > 50  # the parser does find imports


def test_tests_and_benchmarks_import_the_package_only() -> None:
    wrong = []
    for folder in ("tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                wrong += [f"{path}: {name}" for name in names if name.split(".")[0] in ROOMS]
    assert wrong == []


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


HEAVY = {"onnx_ir", "onnxruntime", "onnxsim", "onnx", "numpy"}


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import onnxpress; onnxpress.__version__") & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["optimize", "--no-such-option"]])
def test_help_version_and_usage_errors_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import contextlib, io\n"
        "from onnxpress.compiler.cli.main import run\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    with contextlib.redirect_stderr(io.StringIO()):\n"
        f"        run({arguments!r})"
    )
    assert loaded_by(code) & HEAVY == set()


def test_public_names_load_from_where_they_say() -> None:
    import onnxpress

    for name in onnxpress.__all__:
        assert getattr(onnxpress, name) is not None
    assert set(onnxpress.__all__) <= set(dir(onnxpress))
    with pytest.raises(AttributeError, match="no_such_name"):
        onnxpress.no_such_name  # noqa: B018


def test_every_error_has_its_place_in_the_documented_tree() -> None:
    from onnxpress.backends import errors

    def tree(cls: type[errors.OnnxpressError]) -> Iterator[type[errors.OnnxpressError]]:
        yield cls
        for child in cls.__subclasses__():
            yield from tree(child)

    drawn = errors.__doc__ or ""
    for cls in tree(errors.OnnxpressError):
        if cls.__module__.startswith("onnxpress"):
            line = next((row for row in drawn.splitlines() if cls.__name__ in row.split()), "")
            assert str(cls.exit_code) in line.split(), cls
