"""Trees that several nodes write: whole or not there, whoever dies, is late, or comes twice."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import orjson
import pytest
from typing_extensions import override

pytest.importorskip("s3fs")

from app.coordinator.execution.bucket import merging as merging_module
from app.coordinator.execution.bucket import parts as parts_module
from app.coordinator.execution.bucket.checkpoints import look
from app.coordinator.execution.bucket.merging import Merger, sweep
from app.coordinator.execution.bucket.parts import NodeEnd, RunParts
from app.coordinator.jobs.model import Checkpoint
from app.files.directory import Directory
from app.files.walking import ChangedMeanwhile, Limits
from app.objects.published import PublishedTrees
from app.objects.s3 import S3Store
from app.objects.store import StoredObject
from tests.objects.test_published import Died, DyingStore, fetch, make

PREFIX = "jobs/1/checkpoints/"
WANTED = threading.Event()
_T = TypeVar("_T")


class Run:
    """A run on two nodes, as its nodes and the coordinator see it."""

    def __init__(self, store: S3Store, folder: Path, number: int = 1, *, nodes: int = 2) -> None:
        self.store = store
        self._folder = folder / f"run-{number}"
        self.trees = PublishedTrees(store, PREFIX)
        self.parts = RunParts(store, PREFIX, number)
        self.number = number
        self._nodes = nodes
        self.merger = self.coordinator()

    def coordinator(self, store: S3Store | None = None, limits: Limits | None = None) -> Merger:
        """Another one."""
        return Merger(
            store or self.store,
            PREFIX,
            run=self.number,
            nodes=self._nodes,
            limits=limits or Limits(),
        )

    def publish(self, node: int, name: str, version: int = 0, /, **files: str) -> None:
        """Have a node publish its part: contents by paths, with `__` for slashes; that of a single
        file by the empty path."""
        folder = self._folder / f"{node}-{version}"
        if "" in files:
            make(folder, {name: files[""]})
        else:
            (folder / name).mkdir(parents=True, exist_ok=True)
            make(folder / name, {path.replace("__", "/"): text for path, text in files.items()})
        with Directory.open(folder) as source:
            self.parts.publish(source, name, WANTED, node=node, version=version, limits=Limits())

    def end(self, node: int, *unpublished: str, unfinished: bool = False) -> None:
        self.parts.say_ended(node, NodeEnd(unfinished, frozenset(unpublished)))

    def merge(self) -> list[str]:
        """The names of those that count then."""
        self.merger.merge()
        return self.names()

    def names(self) -> list[str]:
        return [each.name for each in self.trees.names()]

    def content(self, name: str) -> dict[str, str]:
        self._folder.mkdir(exist_ok=True)
        number = len(list(self._folder.iterdir()))
        return fetch(self.trees, name, self._folder / f"copy-{number}")

    def stored(self) -> list[str]:
        return [each.key.removeprefix(PREFIX) for each in self.store.objects(PREFIX)]


def test_a_tree_counts_when_all_nodes_parts_are_there_and_has_them_all(
    store: S3Store, tmp_path: Path
) -> None:
    run = Run(store, tmp_path)
    run.publish(0, "step-1", weights="w", state__a="a", same="1")
    assert run.merge() == []
    run.publish(1, "step-1", state__b="bb", same="1")
    assert run.merge() == ["step-1"]
    assert run.content("step-1") == {"weights": "w", "state/a": "a", "state/b": "bb", "same": "1"}
    assert run.trees.size("step-1") == 5
    # Nothing changes when the same is published or looked at again.
    (mark,) = run.trees.names()
    run.publish(1, "step-1", state__b="bb", same="1")
    for merger in (run.merger, run.coordinator()):
        merger.merge()
        assert run.trees.names() == [mark]
        assert merger.notes == []


def test_of_a_file_that_nodes_have_written_differently_the_first_ones_counts(
    store: S3Store, tmp_path: Path
) -> None:
    run = Run(store, tmp_path, nodes=3)
    run.publish(2, "it", a="2", under="file", only__two="2")
    run.publish(0, "it", a="0", folder__x="0")
    run.publish(1, "it", a="1", under__x="1", folder="file", b="1")
    assert run.merge() == ["it"]
    assert run.content("it") == {
        "a": "0",
        "folder/x": "0",
        "under/x": "1",
        "b": "1",
        "only/two": "2",
    }
    (note,) = run.merger.notes
    assert "'a'" in note


def test_a_node_without_a_part_has_to_say_so(store: S3Store, tmp_path: Path) -> None:
    run = Run(store, tmp_path, nodes=3)
    run.publish(0, "first.pt", **{"": "1"})
    run.publish(0, "second", a="2")
    assert run.merge() == []
    run.parts.say_nothing("first.pt", node=1)
    assert run.merge() == []
    run.end(2)
    assert run.merge() == ["first.pt"]
    assert run.content("first.pt") == {"": "1"}
    # One that ended in the middle of something may have been about to write its part.
    run.end(1, unfinished=True)
    assert run.merge() == ["first.pt"]
    assert any("not all nodes" in note for note in run.merger.notes)
    run.end(1, "second")
    assert run.merge() == ["first.pt"]
    run.end(1)
    assert run.merge() == ["first.pt", "second"]
    # What it has after all counts as well.
    run.publish(1, "first.pt", late="1")
    assert run.merge() == ["first.pt", "second"]


def test_parts_of_two_runs_are_never_in_one_tree(store: S3Store, tmp_path: Path) -> None:
    first, second = Run(store, tmp_path, 1), Run(store, tmp_path, 2)
    first.publish(0, "step-1", a="1", b="1")
    # The first run is lost, and the second comes to the same step.
    second.publish(1, "step-1", c="2")
    assert second.merge() == []
    first.publish(1, "step-1", c="1")
    assert second.merge() == []
    second.publish(0, "step-1", a="2")
    assert second.merge() == ["step-1"]
    content = {"a": "2", "c": "2"}
    assert second.content("step-1") == content
    # Whatever of the first run comes later, what counts stays as it is.
    first.publish(0, "step-1", a="late", b="late")
    first.publish(1, "step-1", c="late")
    assert second.merge() == ["step-1"]
    assert second.content("step-1") == content
    sweep(store, PREFIX, before=2)
    assert not [key for key in second.stored() if key.startswith(".parts/1/")]
    assert second.content("step-1") == content


def test_what_counts_of_an_earlier_run_counts_until_the_later_one_has_its_own(
    store: S3Store, tmp_path: Path
) -> None:
    first, second = Run(store, tmp_path, 1), Run(store, tmp_path, 2)
    for node in (0, 1):
        first.publish(node, "step-1", **{f"of-{node}": "1"})
        first.publish(node, "step-2", **{f"of-{node}": "1"})
    assert first.merge() == ["step-1", "step-2"]
    second.publish(0, "step-1", **{"of-0": "2"})
    assert second.merge() == ["step-1", "step-2"]
    sweep(store, PREFIX, before=2)
    assert second.content("step-1") == {"of-0": "1", "of-1": "1"}
    second.publish(1, "step-1", **{"of-1": "2"})
    second.merge()
    assert second.content("step-1") == {"of-0": "2", "of-1": "2"}
    assert second.content("step-2") == {"of-0": "1", "of-1": "1"}
    # Of the former one, nothing is left.
    assert not [key for key in second.stored() if key.startswith(".parts/1/") and "step-1" in key]


def dying(run: Run, do: Callable[[Merger], object], state: Callable[[], _T]) -> list[_T]:
    """The states in which a coordinator leaves the store that dies ever later while it does
    something, each time beside another one that does it then."""
    store = DyingStore(run.store.place)
    found: list[_T] = []
    while True:
        store.left = len(found)
        merger = run.coordinator(store)
        try:
            do(merger)
        except Died:
            found.append(state())
        else:
            store.close()
            return found


def test_a_coordinator_that_dies_leaves_the_former_tree_or_the_whole_new_one(
    store: S3Store, tmp_path: Path
) -> None:
    first, second = Run(store, tmp_path, 1), Run(store, tmp_path, 2)
    for run in (first, second):
        for node in (0, 1):
            run.publish(node, "it", **{f"of-{node}": str(run.number)})
    first.merge()
    former, newer = ({f"of-{node}": text for node in (0, 1)} for text in "12")
    found = dying(second, lambda merger: merger.merge(), lambda: second.content("it"))
    assert found[0] == former
    assert all(each == newer for each in found[1:])
    assert second.content("it") == newer


def test_one_that_is_removed_is_never_made_anew_whenever_its_remover_dies(
    store: S3Store, tmp_path: Path
) -> None:
    run = Run(store, tmp_path)
    for node in (0, 1):
        run.publish(node, "it", **{f"of-{node}": "1"})
    assert run.merge() == ["it"]

    def remove(merger: Merger) -> None:
        merger.merge()
        merger.remove("it")

    states = dying(run, remove, run.names)
    # It may still be there, and is whole then; once it is not, it is gone.
    assert states == sorted(states, key=len, reverse=True)
    assert states[0] == ["it"]
    assert run.merge() == []
    # The next run finds what is left of it.
    sweep(store, PREFIX, before=2)
    assert run.stored() == []


def test_only_the_newest_are_kept_and_of_the_others_nothing_is_left(
    store: S3Store, tmp_path: Path
) -> None:
    run = Run(store, tmp_path)
    known: tuple[Checkpoint, ...] = ()
    for step in range(1, 5):
        for node in (0, 1):
            run.publish(node, f"step-{step}", **{f"of-{node}": "x" * step})
        run.merger.merge()
        known = look(run.trees, known, keep=2, remove=run.merger.remove)
    assert [each.checkpoint_id for each in known] == ["step-3", "step-4"]
    assert [each.size_bytes for each in known] == [6, 8]
    assert not [key for key in run.stored() if "step-1" in key or "step-2" in key]
    run.trees.remove_all()
    assert run.stored() == []


def test_what_several_nodes_write_anew_under_one_name_counts_as_it_was_complete(
    store: S3Store, tmp_path: Path
) -> None:
    run = Run(store, tmp_path)
    for node in (0, 1):
        run.publish(node, "latest", **{f"of-{node}": "1"})
    assert run.merge() == ["latest"]
    for node in (1, 0):
        run.publish(node, "latest", 1, **{f"of-{node}": "2"})
        assert run.merge() == ["latest"]
        assert run.content("latest") == {"of-0": "1", "of-1": "1"}
    assert any("a name of its own" in note for note in run.merger.notes)
    run.merger.remove_rest()
    assert run.content("latest") == {"of-0": "1", "of-1": "1"}


def test_what_one_node_alone_writes_anew_counts_anew(store: S3Store, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    run.publish(0, "latest.pt", **{"": "1"})
    run.parts.say_nothing("latest.pt", node=1)
    run.merge()
    (former,) = run.trees.names()
    run.publish(0, "latest.pt", 1, **{"": "22"})
    # Until it is marked, the former one is whole.
    assert run.content("latest.pt") == {"": "1"}
    run.merge()
    (newer,) = run.trees.names()
    assert newer.version != former.version
    assert run.content("latest.pt") == {"": "22"}
    assert ".parts/1/0/latest.pt" not in run.stored()


def test_what_is_left_unfinished_goes(store: S3Store, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    run.publish(0, "step-1", a="1")
    run.end(0)
    run.publish(1, "step-2", a="1")
    run.end(1, unfinished=True)
    assert run.merge() == ["step-2"]
    run.merger.remove_rest()
    assert not [key for key in run.stored() if "step-1" in key]
    assert run.content("step-2") == {"a": "1"}


def test_a_whole_that_is_too_large_does_not_count(store: S3Store, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    for node in (0, 1):
        run.publish(node, "it", **{f"of-{node}__deep": "12345"})
    for limits, said in (
        (Limits(entries=1), "more than 1 files"),
        (Limits(size_bytes=9), "more than 9 bytes"),
        (Limits(depth=0), "more than 0 deep"),
    ):
        merger = run.coordinator(limits=limits)
        merger.merge()
        assert run.names() == []
        assert said in merger.refused["it"]
        assert said in merger.notes[0]
    # As large as it may be.
    run.coordinator(limits=Limits(entries=2, size_bytes=10, depth=1)).merge()
    assert run.names() == ["it"]


@pytest.mark.parametrize(
    "record",
    [
        b"{",
        b"[]",
        b'{"files": 1}',
        b'{"files": [["../out", 1, "x"]]}',
        b'{"files": [["a", 1, "x", "1/0"]]}',
        b'{"files": [["a//b", 1, "x"]]}',
        b'{"files": [], "version": -1}',
        b'{"files": [], "version": "1"}',
        b'{"files": [], "unchanged": [1]}',
    ],
)
def test_what_is_no_record_is_no_part(store: S3Store, tmp_path: Path, record: bytes) -> None:
    run = Run(store, tmp_path)
    run.publish(0, "it", a="1")
    run.end(1)
    store.write(f"{PREFIX}.parts/1/.complete/1/it", record)
    assert run.merge() == []
    assert any("damaged" in note for note in run.merger.notes)


@pytest.mark.parametrize("end", [b"{", b'{"unpublished": 1}'])
def test_a_node_whose_end_nobody_can_read_has_not_said_that_it_has_nothing(
    store: S3Store, tmp_path: Path, end: bytes
) -> None:
    run = Run(store, tmp_path)
    run.publish(0, "it", a="1")
    store.write(f"{PREFIX}.parts/1/.ended/1", end)
    assert run.merge() == []
    assert any("not all nodes have finished" in note for note in run.merger.notes)
    run.end(1)
    assert run.merge() == ["it"]


def test_other_keys_among_the_records_are_passed_over(store: S3Store, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    for key in (
        *(".complete/x/it", ".complete/1", ".complete/0/..", ".complete/0/a/b", ".ended/x"),
        *(".ended/0/more", ".other/0", ".complete/99999999999/it", ".complete/7/it"),
    ):
        store.write(f"{PREFIX}.parts/1/{key}", b'{"files": []}')
    assert run.merge() == []
    for node in (0, 1):
        run.publish(node, "it", **{f"of-{node}": "1"})
    assert run.merge() == ["it"]


@pytest.mark.parametrize("part", ["../../other", "1", "1/0/..", "a/0", "1/0-", ""])
def test_a_mark_names_nothing_outside_of_its_parts(
    store: S3Store, tmp_path: Path, part: str
) -> None:
    run = Run(store, tmp_path)
    mark = orjson.dumps({"files": [["a", 1, "x", part]]})
    store.write(f"{PREFIX}.complete/it", mark)
    with pytest.raises(ValueError, match="no mark"):
        run.content("it")


def test_the_output_has_what_any_node_has_changed_and_nothing_that_one_has_removed(
    store: S3Store, tmp_path: Path
) -> None:
    """Each node begins with what earlier runs have left, and writes to its own copy."""
    run = Run(store, tmp_path)
    given = {"kept": "0", "first": "0", "second": "0", "removed": "0"}
    for node in (0, 1):
        folder = tmp_path / f"node-{node}"
        make(folder / "output", given)
        changed = "second" if node else "first"
        make(folder / "output", {changed: "new", f"of-{node}": "new"})
        unchanged = given.keys() - {changed}
        if node:
            (folder / "output" / "removed").unlink()
            unchanged -= {"removed"}
        with Directory.open(folder) as source:
            run.parts.publish(
                source,
                "output",
                WANTED,
                node=node,
                limits=Limits(),
                unchanged=unchanged,
                skipped=unchanged if node else (),
            )
    assert run.merge() == ["output"]
    assert run.content("output") == {
        "kept": "0",
        "first": "new",
        "second": "new",
        "of-0": "new",
        "of-1": "new",
    }


class Pruning(S3Store):
    """Has a script do something to its checkpoint while the first of its files is on the way."""

    def __init__(self, like: S3Store, script: list[Callable[[], object]]) -> None:
        super().__init__(like.place)
        self._script = script

    @override
    def upload(self, key: str, source: int, abandoned: threading.Event) -> StoredObject:
        while self._script:
            self._script.pop()()
        return super().upload(key, source, abandoned)


@pytest.mark.parametrize("how", ["renamed", "file", "directory", "changed"])
def test_one_that_is_removed_while_it_is_published_does_not_count(
    store: S3Store, tmp_path: Path, how: str
) -> None:
    it = tmp_path / "it"
    make(it, {"a": "1", "b": "2", "deep/c/d": "3"})
    script: dict[str, Callable[[], object]] = {
        "renamed": lambda: it.rename(tmp_path / ".it.removed.partial"),
        "file": lambda: (it / "b").unlink(),
        "directory": lambda: shutil.rmtree(it / "deep" / "c"),
        "changed": lambda: (it / "a").write_text("another"),
    }
    pruning = Pruning(store, [script[how]])
    with Directory.open(tmp_path) as source, pytest.raises((ChangedMeanwhile, FileNotFoundError)):
        PublishedTrees(pruning, PREFIX).publish(source, "it", WANTED, limits=Limits())
    pruning.close()
    assert PublishedTrees(store, PREFIX).names() == []


def test_more_parts_than_are_looked_at_are_told_of(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "MOST", 3)
    monkeypatch.setattr(merging_module, "MOST", 3)
    parts = RunParts(store, "jobs/1/checkpoints/", 1)
    merger = Merger(store, "jobs/1/checkpoints/", run=1, nodes=1, limits=Limits())
    for number in range(3):
        parts.say_nothing(f"step-{number}", node=0)
    merger.merge()
    assert merger.notes == []
    parts.say_nothing("step-3", node=0)
    for _ in range(2):
        merger.merge()
    (note,) = merger.notes
    assert "more than 3 parts" in note
