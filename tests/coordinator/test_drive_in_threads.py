"""A drive that is slow to answer is asked in a thread: the loop has others to serve."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.coordinator.data.drive import Drive
from app.coordinator.service.base import Calls, Parts

PATIENCE = 60.0


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    """A drive whose answers may take long."""
    found = Drive(tmp_path)
    with ThreadPoolExecutor(1) as asking:
        found.asking = asking
        yield found


def calls_of(drive: Drive) -> Calls:
    """The service's calls, of which only the drive is there."""
    calls = object.__new__(cast(Any, Calls))
    calls._parts = cast(Parts, SimpleNamespace(drive=drive))
    return cast(Calls, calls)


async def test_the_loop_goes_on_while_a_slow_drive_is_asked(drive: Drive) -> None:
    answers = threading.Event()
    asked = asyncio.create_task(calls_of(drive)._ask_drive(lambda: answers.wait(PATIENCE)))
    await asyncio.sleep(0)
    assert not asked.done()
    # By the loop, which would not come to it.
    answers.set()
    assert await asked is True


async def test_a_problem_that_the_drive_finds_reaches_the_call(drive: Drive) -> None:
    def fails() -> None:
        raise FileNotFoundError("of the drive")

    with pytest.raises(FileNotFoundError, match="of the drive"):
        await calls_of(drive)._ask_drive(fails)


async def test_a_folder_is_asked_at_once(tmp_path: Path) -> None:
    """Nothing comes between a look at the store and what is done with it."""
    asked = asyncio.create_task(calls_of(Drive(tmp_path))._ask_drive(lambda: "there"))
    await asyncio.sleep(0)
    assert asked.done()
    assert asked.result() == "there"
