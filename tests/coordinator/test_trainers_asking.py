"""Asking the trainers for their schema: what is made for it, and removed."""

import asyncio
import os
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from app.coordinator.trainers import asking
from app.coordinator.trainers.asking import Trainers
from app.files.copying import Abandoned
from app.files.directory import Directory

#: Seconds for which a thread waits: a net, not an expectation.
PATIENCE = 60


async def test_a_stop_waits_until_nothing_is_written_into_what_it_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    placing, given_up = asyncio.Event(), threading.Event()

    def place(program: Directory, abandoned: threading.Event) -> None:
        loop.call_soon_threadsafe(placing.set)
        abandoned.wait(PATIENCE)
        with program.create("module.py"):
            pass
        given_up.set()
        raise Abandoned

    monkeypatch.setattr(asking, "place_trainers", place)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trainers = Trainers(Path(sys.executable), readable=())
    trainers.start()
    async with asyncio.timeout(PATIENCE):
        await placing.wait()
        await trainers.close()
    assert given_up.is_set()
    assert await asyncio.to_thread(os.listdir, tmp_path) == []
