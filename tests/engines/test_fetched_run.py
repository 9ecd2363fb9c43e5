"""What a run wrote is brought away, whenever it is asked to stop."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.coordinator.engines.agent.fetched_run import FetchedRun
from app.coordinator.engines.engine import NeverStarted
from app.coordinator.scheduling.transitions import RunEnd
from app.files.copying import Abandoned

PATIENCE = 60


class Node:
    """The engine and the files of a node; its run goes on until it is asked to stop."""

    def __init__(self, *, runs: bool) -> None:
        self._runs = runs
        self._stopped = asyncio.Event()
        self.done: list[str] = []

    async def recover(self, *_: object, **__: object) -> "Node":
        if not self._runs:
            raise NeverStarted
        return self

    async def launch(self, *_: object) -> "Node":
        self.done.append("launched")
        return self

    def stop(self, *, at_once: bool) -> None:
        self.done.append("stopped")
        self._stopped.set()

    async def wait(self) -> RunEnd:
        await self._stopped.wait()
        return RunEnd(exit_code=0, stopped=True)

    def prepare(self, _: object, abandoned: threading.Event) -> SimpleNamespace:
        return self._do("prepared", abandoned)

    def publish_last(self, _: object, abandoned: threading.Event) -> SimpleNamespace:
        return self._do("brought away", abandoned)

    def _do(self, what: str, abandoned: threading.Event) -> SimpleNamespace:
        if abandoned.is_set():
            raise Abandoned
        self.done.append(what)
        return SimpleNamespace()


@pytest.mark.parametrize(
    ("runs", "done"), [(True, ["stopped", "brought away"]), (False, [])], ids=["runs", "new"]
)
async def test_a_stop_that_comes_before_the_run_is_found_again(
    tmp_path: Path, runs: bool, done: Sequence[str]
) -> None:
    node = cast(Any, Node(runs=runs))
    part = cast(Any, SimpleNamespace(job=SimpleNamespace(job_id="a")))
    run = FetchedRun(
        part, engine=node, files=node, end=tmp_path / "end.json", run=lambda spec: spec, term=1
    )
    run.stop(at_once=False)
    async with asyncio.timeout(PATIENCE):
        end = await run.wait()
    assert end.stopped
    assert node.done == list(done)
