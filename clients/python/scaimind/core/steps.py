"""Commands of one operation within another."""

from collections.abc import Generator
from typing import Any, TypeVar

from scaimind.core.commands import Command, Emit

_T = TypeVar("_T")


def collect(
    steps: Generator[Command, Any, _T],
) -> Generator[Command, Any, tuple[_T, list[Any]]]:
    """Carry out commands; return what they return, and what they emit instead of emitting it."""
    told: Any = None
    problem: Exception | None = None
    emitted: list[Any] = []
    while True:
        try:
            command = steps.send(told) if problem is None else steps.throw(problem)
        except StopIteration as stop:
            return stop.value, emitted
        told, problem = None, None
        if isinstance(command, Emit):
            emitted.append(command.item)
            continue
        try:
            told = yield command
        except Exception as error:
            # Whatever it is: those steps handle it, or let it pass.
            problem = error
