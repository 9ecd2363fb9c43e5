"""The one-machine coordinator's own refusals are honest: callers read them as they are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.bridge.sanitise import presentable

COORDINATOR = Path(__file__).parents[2] / "app" / "coordinator"
#: What is raised, or noted, with a text for the caller.
REFUSALS = {
    *("InvalidArgument", "FailedPrecondition", "NotFound", "Overloaded", "Unauthenticated"),
    *("PermissionDenied", "Unavailable", "AlreadyExists", "NotImplementedHere"),
    *("BadUrl", "BadData", "BadParameter", "CannotConvert", "CannotUnpack", "NoReader"),
}


def written(node: ast.expr) -> str:
    """A text as it may come out: what is filled in is a word."""
    match node:
        case ast.Constant(value=str() as value):
            return value
        case ast.JoinedStr(values=values):
            return "".join(map(written, values))
        case ast.BinOp(left=left, right=right):
            return written(left) + written(right)
        case ast.IfExp(body=body):
            return written(body)
    return "x1"


def refusals() -> Iterator[tuple[str, str]]:
    for path in sorted(COORDINATOR.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            of_problems = name == "add" and ast.unparse(called) == "problems.add"
            if name in REFUSALS or of_problems:
                where = f"{path.relative_to(COORDINATOR)}:{node.lineno}"
                yield where, ": ".join(map(written, node.args))


@pytest.mark.parametrize("text", [pytest.param(text, id=where) for where, text in refusals()])
def test_a_refusal_is_shown_as_it_is(text: str) -> None:
    assert presentable(text) == text


def test_they_are_found() -> None:
    assert len(list(refusals())) > 100
