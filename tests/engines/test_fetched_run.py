"""What a run wrote is brought away, whenever it is asked to stop."""

import asyncio
import errno
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.coordinator.engines.agent import fetched_run
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


class Uploading(Node):
    """Its run ends while a checkpoint is on the way to the drive."""

    def __init__(self) -> None:
        super().__init__(runs=True)
        self.begun = threading.Event()
        self.arrives = threading.Event()

    def publish(self, _: object, abandoned: threading.Event) -> None:
        self.begun.set()
        while not self.arrives.wait(0.01):
            if abandoned.is_set():
                self.done.append("broken off")
                raise Abandoned
        self.done.append("arrived")


@pytest.fixture
def uploading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Uploading, FetchedRun]:
    monkeypatch.setattr(fetched_run, "_LOOK", 0.01)
    node = Uploading()
    part = cast(Any, SimpleNamespace(job=SimpleNamespace(job_id="a")))
    about = {"engine": cast(Any, node), "files": cast(Any, node), "run": lambda spec: spec}
    return node, FetchedRun(part, end=tmp_path / "end.json", term=1, **about)


async def test_what_is_on_its_way_when_a_run_ends_is_not_begun_anew(
    uploading: tuple[Uploading, FetchedRun],
) -> None:
    node, run = uploading
    async with asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(run.wait())
        await asyncio.to_thread(node.begun.wait, PATIENCE)
        run.stop(at_once=False)
        # Another node's part has failed, or a coordinator says once more what it wants.
        while not run._ended:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
        run.stop(at_once=True)
        node.arrives.set()
        assert (await waiting).stopped
    assert node.done == ["stopped", "arrived", "brought away"]


async def test_what_nobody_wants_to_wait_for_is_not_brought_away(
    uploading: tuple[Uploading, FetchedRun],
) -> None:
    node, run = uploading
    async with asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(run.wait())
        await asyncio.to_thread(node.begun.wait, PATIENCE)
        # While it runs, it is to be ended first.
        run.discard()
        run.stop(at_once=True)
        while not run._ended:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
        run.discard()
        assert (await waiting).stopped
    assert node.done == ["stopped", "broken off"]


async def test_a_drive_that_is_away_holds_up_nothing_that_nobody_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched_run, "_LOOK", PATIENCE)
    node = Node(runs=True)
    part = cast(Any, SimpleNamespace(job=SimpleNamespace(job_id="a")))
    about = {"engine": cast(Any, node), "files": cast(Any, node), "run": lambda spec: spec}
    run = FetchedRun(part, end=tmp_path / "end.json", term=1, **about)
    asked: list[str] = []

    def away(*_: object) -> None:
        asked.append("asked")
        raise OSError(errno.EAGAIN, "the drive is away")

    monkeypatch.setattr(node, "publish_last", away)
    # While it runs, as for a pause at once.
    run.stop(at_once=True)
    run.discard()
    async with asyncio.timeout(PATIENCE):
        assert (await run.wait()).stopped
    assert asked == ["asked"]


async def test_an_agent_that_leaves_does_not_wait_for_what_is_on_its_way(
    uploading: tuple[Uploading, FetchedRun],
) -> None:
    node, run = uploading
    async with asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(run.wait())
        await asyncio.to_thread(node.begun.wait, PATIENCE)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert node.done == ["broken off"]
