"""How tasks are ended whose results nobody wants any more."""

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog

log = structlog.get_logger("scaimind.tasks")


async def end_all(
    tasks: Iterable[asyncio.Task[Any]], *, expected: type[Exception] | tuple[type[Exception], ...]
) -> None:
    """Cancel tasks, and wait until all have ended.

    What one has raised that nobody has asked for is logged, unless it is `expected`:
    asyncio itself would report either as lost, at some later time.
    """
    tasks = tuple(tasks)
    for task in tasks:
        task.cancel()
    for task, result in zip(
        tasks, await asyncio.gather(*tasks, return_exceptions=True), strict=True
    ):
        if isinstance(result, Exception) and not isinstance(result, expected):
            log.error("task_failed", task=task.get_name(), exc_info=result)
