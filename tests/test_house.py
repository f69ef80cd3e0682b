"""Style as a test: the rules of the house that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("s3gw", "cluster", "storage")
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
IMPURE = {"asyncio", "socket", "time", "os", "random", "secrets", "pathlib", "subprocess", "threading", "datetime.now"}


def _modules() -> Iterator[Path]:
    for package in OURS:
        yield from sorted((ROOT / package).rglob("*.py"))


MODULES = list(_modules())


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_the_house_rules(path: Path) -> None:
    """Bounded length, no import of our own inside a function, no broad except without a reason, purity as declared."""
    text = path.read_text()
    tree = ast.parse(text)
    lines = text.splitlines()
    assert len(lines) <= MODULE_LINES_MAX, f"{len(lines)} lines; split it by meaning"
    docstring = ast.get_docstring(tree) or ""
    assert docstring or not tree.body, "a module says what it is"
    if any(word in docstring.split("\n")[0] for word in ("PURE", "SANS-IO")):
        assert not IMPURE & set(_imported(tree)), "declared pure, imports the world"
    for function in _functions(tree):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= FUNCTION_LINES_MAX, f"{function.name} has {length} lines"
        lazy = [node.lineno for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not lazy, f"import inside {function.name}, line {lazy}"


def test_the_tests_mirror_no_machine_path() -> None:
    """Nothing in the project names a directory of the machine it was written on."""
    for path in [*MODULES, *(ROOT / "tests").rglob("*.py"), *ROOT.glob("*.md")]:
        assert ("/ro" + "ot/") not in path.read_text(), path
