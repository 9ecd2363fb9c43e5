"""What a run wrote is brought away, whenever it is asked to stop."""

import asyncio
import errno
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.coordinator.engines.agent import fetched_run, file_calls
from app.coordinator.engines.agent.fetched_run import FetchedRun
from app.coordinator.engines.engine import Discard, NeverStarted
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


@pytest.mark.parametrize(
    ("number", "done"),
    [(errno.EAGAIN, ["prepared", "launched"]), (errno.EACCES, [])],
    ids=["may pass", "lasts"],
)
async def test_files_that_cannot_be_fetched_are_asked_for_again_only_where_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, done: Sequence[str]
) -> None:
    node = Node(runs=False)
    part = cast(Any, SimpleNamespace(job=SimpleNamespace(job_id="a")))
    about = {"engine": cast(Any, node), "files": cast(Any, node), "run": lambda spec: spec}
    run = FetchedRun(part, end=tmp_path / "end.json", term=1, **about)
    prepare, launch = node.prepare, node.launch

    failures = [OSError(number, "the drive says no")]

    def fails_once(*given: Any) -> object:
        if failures:
            raise failures.pop()
        return prepare(*given)

    async def launched(*given: Any) -> Node:
        node._stopped.set()
        return await launch(*given)

    monkeypatch.setattr(node, "prepare", fails_once)
    monkeypatch.setattr(node, "launch", launched)
    monkeypatch.setattr(node, "publish_last", lambda *_: None)
    async with asyncio.timeout(PATIENCE):
        end = await run.wait()
    assert node.done == list(done)
    failure = "" if done else "The run could not be started: the drive says no."
    assert end.failure == failure


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


class Hanging(Node):
    """Its drive takes connections, and says nothing."""

    def __init__(self, *, runs: bool = True, does: str = "publish_last") -> None:
        super().__init__(runs=runs)
        self.begun, self.let_go = threading.Event(), threading.Event()
        self._does = does

    def publish(self, _: object, abandoned: threading.Event) -> None:
        if self._does == "publish":
            self._hang()

    def prepare(self, part: object, abandoned: threading.Event) -> SimpleNamespace:
        if self._does == "prepare":
            self._hang()
        return super().prepare(part, abandoned)

    def publish_last(self, part: object, abandoned: threading.Event) -> SimpleNamespace:
        if self._does == "publish_last":
            self._hang()
        return super().publish_last(part, abandoned)

    def _hang(self) -> None:
        self.begun.set()
        assert self.let_go.wait(PATIENCE)


@pytest.fixture(params=["publish", "publish_last"])
def hanging(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Hanging, FetchedRun, list[str]]]:
    monkeypatch.setattr(fetched_run, "_LOOK", 0.01)
    monkeypatch.setattr(file_calls, "_STILL", 0.2)
    node, noted = Hanging(does=request.param), list[str]()
    part = cast(Any, SimpleNamespace(job=SimpleNamespace(job_id="a")))
    about = {"engine": cast(Any, node), "files": cast(Any, node), "run": lambda spec: spec}
    yield (
        node,
        FetchedRun(part, end=tmp_path / "end.json", term=1, grace=0.2, note=noted.append, **about),
        noted,
    )
    node.let_go.set()


@pytest.mark.parametrize("discard", [Discard.LATE, Discard.UNTAKEN, Discard.AT_ONCE])
async def test_a_drive_that_says_nothing_holds_up_no_run_that_has_to_end(
    hanging: tuple[Hanging, FetchedRun, list[str]], discard: Discard
) -> None:
    node, run, noted = hanging
    async with asyncio.timeout(PATIENCE / 2):
        waiting = asyncio.create_task(run.wait())
        if node._does == "publish":
            await asyncio.to_thread(node.begun.wait, PATIENCE)
        run.stop(at_once=False, discard=discard)
        assert (await waiting).stopped
    assert not node.let_go.is_set()
    assert len(noted) == 1
    assert "dropped" in noted[0]


async def test_a_job_whose_files_do_not_come_is_not_waited_for(tmp_path: Path) -> None:
    node = Hanging(runs=False, does="prepare")
    part = cast(Any, SimpleNamespace(job=SimpleNamespace(job_id="a")))
    about = {"engine": cast(Any, node), "files": cast(Any, node), "run": lambda spec: spec}
    run = FetchedRun(part, end=tmp_path / "end.json", term=1, grace=0.2, **about)
    async with asyncio.timeout(PATIENCE / 2):
        waiting = asyncio.create_task(run.wait())
        await asyncio.to_thread(node.begun.wait, PATIENCE)
        run.stop(at_once=False)
        assert (await waiting).stopped
    assert not node.let_go.is_set()
    node.let_go.set()


async def test_a_drive_that_is_slow_takes_all_of_a_job_that_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than its stop grace."""
    monkeypatch.setattr(fetched_run, "_LOOK", PATIENCE)
    node = Node(runs=True)
    part = cast(Any, SimpleNamespace(job=SimpleNamespace(job_id="a")))
    about = {"engine": cast(Any, node), "files": cast(Any, node), "run": lambda spec: spec}
    run = FetchedRun(part, end=tmp_path / "end.json", term=1, grace=0.1, **about)
    until = threading.Event()

    def slow(_: object, abandoned: threading.Event) -> None:
        while not until.wait(0.01):
            assert not abandoned.is_set()
        node.done.append("brought away")

    monkeypatch.setattr(node, "publish_last", slow)
    async with asyncio.timeout(PATIENCE):
        run.stop(at_once=False, discard=Discard.UNTAKEN)
        waiting = asyncio.create_task(run.wait())
        while not run._calls._is_over:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
        until.set()
        assert (await waiting).stopped
    assert node.done[-1] == "brought away"
