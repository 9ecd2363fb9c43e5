"""Docstrings begin with a standard verb, and none only points elsewhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).parents[1] / "app"
MODULES = sorted(APP.rglob("*.py"))


def docstrings(module: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(APP)))
def test_no_docstring_begins_with_give_or_tell_or_points_elsewhere(module: Path) -> None:
    riddles = [
        (line, text)
        for line, text in docstrings(module)
        if text.startswith(("Give", "Tell", "See"))
    ]
    assert riddles == []
