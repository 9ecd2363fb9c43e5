"""What a node publishes of checkpoints that several nodes write, and what it says it has not."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("s3fs")

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.execution.bucket.merging import Merger, sweep
from app.coordinator.execution.bucket.newest_run import note_newest_run
from app.coordinator.execution.bucket.parts import RunParts
from app.coordinator.execution.checkpoints import CheckpointFinder, remove_leftovers
from app.coordinator.execution.on_nodes.checkpoints import NodeCheckpoints
from app.coordinator.jobs.model import Checkpoint
from app.files.directory import Directory
from app.files.walking import Limits
from app.objects.published import PublishedTrees
from tests.objects.test_published import fetch, make

if TYPE_CHECKING:
    from app.objects.s3 import S3Store

WANTED = threading.Event()
PREFIX = "acme/jobs/job-1/checkpoints/"
KEEPS_ALL = SimpleNamespace(output_config=SimpleNamespace(max_checkpoints=0))


@dataclass(frozen=True)
class Job:
    """As far as its checkpoints are concerned."""

    run_count: int = 1
    tenant_id: str = "acme"
    job_id: str = "job-1"
    checkpoints: tuple[Checkpoint, ...] = ()
    submission: Any = field(default_factory=lambda: KEEPS_ALL)


class Node:
    """A node of a run on two, with a disk of its own and a clock that is set by hand."""

    def __init__(
        self, store: "S3Store", folder: Path, number: int, *, run: int = 1, count: int = 2
    ) -> None:
        #: Called once, behind the next look at what is here.
        self.behind_look: list[Callable[[], object]] = []
        self.seconds = 0.0
        self.disk = folder / f"{run}-{number}" / "checkpoints"
        self.disk.mkdir(parents=True)
        self.job = Job(run)
        self._bucket = BucketDrive(folder / "drive", store=store)
        self._part = cast(Any, SimpleNamespace(job=self.job, number=number, count=count))
        self.agent = self.new_agent()

    def new_agent(self) -> NodeCheckpoints:
        """One that goes on where another died."""
        return NodeCheckpoints(
            directory=self.disk.parent,
            bucket=self._bucket,
            workspace=cast(Any, self),
            limits=Limits(),
            clock=lambda: 0,
            monotonic=lambda: self.seconds,
        )

    def keep(self, submission: Any) -> None:
        """Have the job keep fewer checkpoints."""
        self.job = self._part.job = replace(self.job, submission=submission)

    def publish(self, *, last: bool = False, after: float = 5.0) -> None:
        """Some seconds later."""
        self.seconds += after
        self.agent.publish(self._part, WANTED, last=last)

    def write(self, name: str, **files: str) -> None:
        make(self.disk / f".{name}.partial", files)
        (self.disk / f".{name}.partial").rename(self.disk / name)

    # What the node's workspace is asked for.

    def open_checkpoints(self, _: Job) -> Directory:
        return Directory.open(self.disk)

    def checkpoints(
        self, job: Job, finder: CheckpointFinder, *, last: bool = False
    ) -> tuple[Checkpoint, ...]:
        with Directory.open(self.disk) as root:
            found = finder.look(root, job.checkpoints, last=last)
        while self.behind_look:
            self.behind_look.pop()()
        return found

    def remove_leftovers(self, _: Job) -> None:
        with Directory.open(self.disk) as root:
            remove_leftovers(root)


class Pruning:
    """A store, and a script that removes its checkpoint while its first file is on the way."""

    def __init__(self, store: "S3Store", script: list[Callable[[], object]]) -> None:
        self._store = store
        self._script = script

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upload(self, *given: Any) -> Any:
        while self._script:
            self._script.pop()()
        return self._store.upload(*given)


@pytest.mark.parametrize("count", [1, 2])
def test_one_that_is_removed_while_it_is_on_the_way_arrives_as_it_was(
    store: "S3Store", tmp_path: Path, count: int
) -> None:
    """As where a script keeps fewer checkpoints than it writes while one is brought away."""
    removed = tmp_path / "1-0" / "checkpoints" / ".step-1.removed.partial"
    script: list[Callable[[], object]] = []
    node = Node(cast(Any, Pruning(store, script)), tmp_path, 0, count=count)
    script += [lambda: shutil.rmtree(removed), lambda: (node.disk / "step-1").rename(removed)]
    node.write("step-1", **{"a": "1", "b": "2", "deep/c/d": "3"})
    node.publish()
    assert script == []
    assert not (node.disk.parent / "held").exists()
    trees = PublishedTrees(store, PREFIX)
    if count > 1:
        RunParts(store, PREFIX, 1).say_nothing("step-1", node=1)
    Merger(store, PREFIX, run=1, nodes=count, limits=Limits()).merge()
    content = fetch(trees, "step-1", tmp_path / "copy")
    assert content == {"a": "1", "b": "2", "deep/c/d": "3"}


@pytest.mark.parametrize("before", [False, True], ids=["new", "old layout"])
def test_what_a_run_sends_late_changes_no_checkpoint_of_the_next(
    store: "S3Store", tmp_path: Path, *, before: bool
) -> None:
    """Its node was cut off in the middle of an upload, and taken for lost."""
    trees, script = PublishedTrees(store, PREFIX), list[Callable[[], object]]()
    if before:
        # As releases before this one have it.
        make(tmp_path / "old" / "step-1", {"a": "before", "gone": "before"})
        with Directory.open(tmp_path / "old") as source:
            trees.publish(source, "step-1", WANTED, limits=Limits())
        assert fetch(trees, "step-1", tmp_path / "first") == {"a": "before", "gone": "before"}
    late = Node(cast(Any, Pruning(store, script)), tmp_path, 0, count=1)
    late.write("step-1", **{"a": "of run 1", "b": "of run 1"})
    next_run = Node(store, tmp_path, 0, run=2, count=1)

    def go_on() -> None:
        next_run.write("step-1", **{"a": "of run 2", "c": "of run 2"})
        next_run.publish()
        Merger(store, PREFIX, run=2, nodes=1, limits=Limits()).merge()

    script.append(go_on)
    late.publish()
    content = {"a": "of run 2", "c": "of run 2"}
    assert fetch(trees, "step-1", tmp_path / "second") == content
    merger = Merger(store, PREFIX, run=2, nodes=1, limits=Limits())
    merger.merge()
    sweep(store, PREFIX, before=2)
    assert fetch(trees, "step-1", tmp_path / "third") == content
    # Nothing else is left, of the layout before neither.
    merger.remove("step-1")
    assert list(store.objects(PREFIX)) == []


class Pair:
    """Both nodes of a run, and the coordinator."""

    def __init__(self, store: "S3Store", folder: Path, *, run: int = 1) -> None:
        self.first, self.second = (Node(store, folder, number, run=run) for number in (0, 1))
        self.parts = RunParts(store, PREFIX, run)
        self.merger = Merger(store, PREFIX, run=run, nodes=2, limits=Limits())

    def counting(self) -> list[str]:
        self.merger.merge()
        return [each.name for each in self.merger._trees.names()]

    def record(self, name: str, node: int) -> Any:
        """What a node has said of a tree; None for nothing."""
        stored = self.parts.records().parts.get(name, {}).get(node)
        return None if stored is None else self.parts.read(node, stored)


@pytest.fixture
def pair(store: "S3Store", tmp_path: Path) -> Pair:
    return Pair(store, tmp_path)


def test_where_only_rank_0_writes_the_other_node_soon_says_that_it_has_nothing(pair: Pair) -> None:
    pair.first.write("step-1", a="1")
    pair.first.publish()
    pair.second.publish()
    assert pair.record("step-1", 1) is None
    pair.second.publish(after=9.0)
    assert pair.counting() == []
    pair.second.publish()
    assert pair.record("step-1", 1).is_nothing
    assert pair.counting() == ["step-1"]


@pytest.mark.parametrize("unfinished", [".step-1.partial/b", "step-1.tmp", "tmp-checkpoint-1/b"])
def test_a_node_that_is_still_writing_says_nothing(
    pair: Pair, tmp_path: Path, unfinished: str
) -> None:
    pair.first.write("step-1", a="1")
    pair.first.publish()
    make(pair.second.disk, {unfinished: "half"})
    for _ in range(5):
        pair.second.publish()
    assert pair.record("step-1", 1) is None
    # Neither when its processes were killed in the middle of it.
    pair.first.publish(last=True)
    pair.second.publish(last=True)
    assert pair.counting() == []
    assert any("not all nodes" in note for note in pair.merger.notes)


def test_a_node_that_ends_has_nothing_of_what_it_has_not_published(pair: Pair) -> None:
    # An empty directory, such as one to write in, is nothing that is unfinished.
    (pair.second.disk / ".writing").mkdir()
    pair.second.publish(last=True)
    pair.first.write("step-1", a="1")
    pair.first.publish(last=True)
    assert pair.counting() == ["step-1"]


@pytest.mark.parametrize("by", ["its number", "its script"])
def test_a_node_never_says_that_it_has_nothing_of_what_was_gone_before_it_was_away(
    pair: Pair, by: str
) -> None:
    pair.first.write("step-1", a="1")
    pair.first.publish()
    pair.second.write("step-1", b="1")
    if by == "its number":
        # Two since the last look, and one is kept.
        keeps_one = SimpleNamespace(output_config=SimpleNamespace(max_checkpoints=1))
        pair.second.keep(keeps_one)
        pair.second.write("step-2", b="2")
    else:
        pair.second.behind_look.append(lambda: shutil.rmtree(pair.second.disk / "step-1"))
    pair.second.publish()
    assert not (pair.second.disk / "step-1").exists()
    for _ in range(5):
        pair.second.publish()
    pair.second.agent = pair.second.new_agent()
    for node in (pair.second, pair.first):
        node.publish(last=True)
    assert pair.record("step-1", 1) is None
    assert "step-1" not in pair.counting()


def test_a_part_that_is_published_twice_is_the_same_one(pair: Pair, tmp_path: Path) -> None:
    for node in (pair.first, pair.second):
        node.write("step-1", **{f"of-{node.disk.parent.name}": "1"})
        node.publish()
    assert pair.counting() == ["step-1"]
    (mark,) = pair.merger._trees.names()
    # The agent died before it noted that the part is away.
    (pair.first.disk.parent / "away.json").unlink()
    pair.first.agent = pair.first.new_agent()
    pair.first.publish()
    assert pair.record("step-1", 0).version == 0
    pair.merger.merge()
    assert pair.merger._trees.names() == [mark]
    # One that is written anew is another version, also if its agent dies before it is away.
    pair.first.write("step-2", a="1")
    pair.first.publish()
    (pair.first.disk / "step-2").rename(pair.first.disk / ".gone.partial")
    pair.first.write("step-2", a="2")
    pair.first.publish()
    (pair.first.disk.parent / "away.json").unlink()
    pair.first.agent = pair.first.new_agent()
    pair.first.publish()
    assert pair.record("step-2", 0).version == 1


def test_what_a_run_goes_on_from_is_nothing_that_it_has_published(
    store: "S3Store", tmp_path: Path
) -> None:
    pair = Pair(store, tmp_path)
    for node in (pair.first, pair.second):
        node.write("step-1", **{f"of-{node.disk.parent.name}": "1"})
        node.publish(last=True)
    assert pair.counting() == ["step-1"]
    later = Pair(store, tmp_path, run=2)
    for node in (later.first, later.second):
        with Directory.open(node.disk) as disk:
            later.merger._trees.fetch("step-1", disk, "step-1", WANTED)
        node.agent.note_present(cast(Any, node.job))
        node.publish()
    assert later.parts.records().parts == {}
    # Only one of its nodes writes the same anew: the other one has but the former.
    (later.first.disk / "step-1").rename(later.first.disk / ".gone.partial")
    later.first.write("step-1", a="2")
    for node in (later.first, later.second):
        node.publish()
        node.publish(after=20.0)
        node.publish(last=True)
    assert later.counting() == ["step-1"]
    content = fetch(later.merger._trees, "step-1", tmp_path / "copy")
    assert content == {"of-1-0": "1", "of-1-1": "1"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_node_publishes_nothing_more_for_a_run_that_another_has_followed(
    store: "S3Store", tmp_path: Path, count: int
) -> None:
    drive = BucketDrive(tmp_path / "drive", store=store)
    lost = Node(store, tmp_path, 0, count=count)
    note_newest_run(drive, cast(Any, lost.job))
    lost.write("step-1", a="1")
    lost.publish()
    later = Node(store, tmp_path, 0, run=2, count=count)
    note_newest_run(drive, cast(Any, later.job))
    lost.write("step-2", a="1")
    for last in (False, True):
        with pytest.raises(CannotLaunch, match="another run"):
            lost.publish(last=last)
    later.write("step-2", a="2")
    later.publish()
    found = [each for each in store.objects(PREFIX) if each.key.endswith("step-2/a")]
    assert [store.read(each.key, limit=9) for each in found] == [b"2"]
