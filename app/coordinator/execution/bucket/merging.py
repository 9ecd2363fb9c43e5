"""Makes whole trees of the parts that the nodes of a run have published.

A tree counts once its mark names the files of all parts, with their versions.
Who writes it is the coordinator that leads, and nobody else: it outlives any
node, knows which run of the job is the newest one and how many nodes that has,
and can write it at any later moment if it dies before. Parts of two runs are
never in one tree.

A node without a part of a tree has to say so: that it has nothing of it, and
nothing that is unfinished. Until then its part may be on its way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.coordinator.execution.bucket.parts import (
    MOST,
    NodeEnd,
    PartRecords,
    RunParts,
    TreePart,
)
from app.coordinator.execution.checkpoints import step_of
from app.files.directory import LimitReached
from app.files.names import printable
from app.files.walking import Limits
from app.objects.published import PARTS, MarkedFile, Published, PublishedTrees
from app.objects.store import ObjectStore, StoredObject

#: Runs of one job whose parts are looked for.
_MOST_RUNS: Final = 50_000


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at one tree has found."""

    #: Of its mark; empty if it has none.
    mark: str
    #: Of its records, by the numbers of their nodes.
    records: Mapping[int, str]
    counts: bool


class Merger:
    """For the trees of one run below a prefix. For one thread at a time; blocks.

    Every call raises as those of the store.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        *,
        run: int,
        nodes: int,
        limits: Limits,
        noun: str = "The checkpoint",
    ) -> None:
        """`prefix` ends with a slash; `limits` are those of a whole tree. Notes call one by its
        name behind `noun`."""
        self._trees = PublishedTrees(store, prefix)
        self._parts = RunParts(store, prefix, run)
        self.run = run
        self._nodes = nodes
        self._limits = limits
        self._noun = noun
        self._looks: dict[str, _Look] = {}
        self._ends: dict[int, tuple[str, NodeEnd | None]] = {}
        self._records = PartRecords()
        self._marks: dict[str, Published] = {}
        self._said: set[str] = set()
        #: What the job's log is to say, in sentences, each once in a run.
        self.notes: list[str] = []
        #: Why a tree does not count though all its parts are there, as a phrase, by its name.
        self.refused: dict[str, str] = {}

    def merge(self) -> None:
        """Have those trees count whose parts are all there, the oldest first."""
        self._records = self._parts.records()
        parts = self._records.parts
        if self._records.is_cut:
            self._say(
                f"Its nodes have published more than {MOST} parts of checkpoints: some that are new"
                " do not count. Keep fewer of them (max_checkpoints)."
            )
        if not parts:
            return
        self._marks = {each.name: each for each in self._trees.names()}
        for name in sorted(parts, key=self._age):
            self._look_at(name, parts[name])
        counting = [name for name in parts if self._counts(name)]
        for name in parts.keys() - self._marks.keys() - set(counting):
            # Each node that has a part of it has published a later tree, which counts, behind it:
            # what is missing is not coming.
            if any(_is_behind(parts[each], parts[name]) for each in counting):
                self._parts.remove(name, parts[name])

    def remove(self, name: str) -> None:
        """Remove a tree. It is never made anew of what is left of it."""
        self._parts.remove_records(self._records.parts.get(name, {}))
        self._trees.remove(name)

    def remove_rest(self) -> None:
        """Remove the parts of trees that the run has not finished. Call it when the run is over,
        behind `merge`."""
        parts = self._records.parts
        for name in parts.keys() - self._marks.keys():
            if not self._counts(name):
                self._parts.remove(name, parts[name])

    def _age(self, name: str) -> tuple[int, int, str]:
        published = (record.modified for record in self._records.parts[name].values())
        return max(published), step_of(name), name

    def _counts(self, name: str) -> bool:
        return name in self._looks and self._looks[name].counts

    def _look_at(self, name: str, records: Mapping[int, StoredObject]) -> None:
        versions = {node: record.etag for node, record in records.items()}
        mark = self._marks[name].version if name in self._marks else ""
        known = self._looks.pop(name, None)
        if known is not None and (known.mark, known.records) == (mark, versions):
            self._looks[name] = known
            return
        if not all(self._is_told(node, name, records) for node in range(self._nodes)):
            return
        try:
            parts = [self._parts.read(node, records[node]) for node in sorted(records)]
        except FileNotFoundError:
            # Removed since they were listed.
            return
        except (LimitReached, ValueError):
            self._refuse(name, "a record of its parts is damaged")
            return
        parts = [each for each in parts if each.node < self._nodes and not each.is_nothing]
        counts = bool(parts) and self._mark(name, parts)
        # What is marked anew is looked at once more.
        self._looks[name] = _Look(mark, versions, counts)

    def _mark(self, name: str, parts: Sequence[TreePart]) -> bool:
        """Have a tree count that has these parts; whether it does."""
        if len(parts) > 1 and any(part.version for part in parts):
            # Which versions of them belong together, nobody can tell.
            self._say(
                f"{self._called(name)} was written anew under its name, and several nodes have a"
                " part of it: only what was complete before counts. Give each checkpoint a name of"
                " its own."
            )
            return False
        files, conflicts = merged(parts, self.run)
        if problem := _excess(files, self._limits):
            self._refuse(name, problem)
            return False
        if conflicts:
            self._say(
                f"{self._called(name)} has {printable(conflicts[0])!r} from several nodes, each"
                " with other content: that of the first of them counts."
            )
        if not self._trees.is_marked(name, files):
            self._trees.mark_parts(name, files)
        return True

    def _is_told(self, node: int, name: str, records: Mapping[int, StoredObject]) -> bool:
        """Whether a node has published its part, or has said that there is none."""
        if node in records:
            return True
        if (record := self._records.ended.get(node)) is None:
            return False
        known = self._ends.get(node)
        if known is None or known[0] != record.etag:
            try:
                end = self._parts.read_end(record)
            except (FileNotFoundError, LimitReached, ValueError):
                end = None
            known = self._ends[node] = (record.etag, end)
        if known[1] is not None and known[1].has_nothing(name):
            return True
        self._say(
            f"{self._called(name)} does not count: not all nodes have finished their part of it."
        )
        return False

    def _refuse(self, name: str, problem: str) -> None:
        self.refused[name] = problem
        self._say(f"{self._called(name)} does not count: {problem}.")

    def _called(self, name: str) -> str:
        return f"{self._noun} {printable(name)!r}"

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self.notes.append(sentence)


def merged(parts: Sequence[TreePart], run: int) -> tuple[list[MarkedFile], list[str]]:
    """Return the files of a tree that has these parts, in the order of their nodes, and the paths
    of which several nodes have different files.

    Of these the first node's counts: that of rank 0, if it has one. What a
    node was given when its run began, and has not changed, counts where no
    node has changed or removed it.
    """
    taken: dict[str, MarkedFile] = {}
    folders: set[str] = set()
    conflicts = []

    def take(path: str, size: int, etag: str, part: TreePart) -> None:
        above = _folders(path)
        known = taken.get(path)
        if known is not None and known[1:3] == (size, etag):
            return
        if known is not None or path in folders or not taken.keys().isdisjoint(above):
            conflicts.append(path)
            return
        taken[path] = (path, size, etag, f"{run}/{part.folder}")
        folders.update(above)

    for part in parts:
        for path, size, etag in part.files:
            if path not in part.unchanged:
                take(path, size, etag, part)
    changed = set(taken)
    everywhere = frozenset.intersection(*(part.unchanged for part in parts))
    for part in parts:
        for path, size, etag in part.files:
            if path in everywhere and path not in changed:
                take(path, size, etag, part)
    return sorted(taken.values()), conflicts


def sweep(store: ObjectStore, prefix: str, *, before: int) -> None:
    """Remove what runs with numbers below `before` have left of parts and that no mark names.

    Their records go, too: nothing is made of them any more.
    """
    runs = [
        name
        for name in store.listing(f"{prefix}{PARTS}/", limit=_MOST_RUNS).folders
        if name.isascii() and name.isdecimal() and int(name) < before
    ]
    if not runs:
        return
    trees = PublishedTrees(store, prefix)
    try:
        named = {member.stored.key for each in trees.names() for member in trees.members(each.name)}
    except (FileNotFoundError, ValueError):
        # One that was removed meanwhile, or that nobody can read: another time.
        return
    for run in runs:
        below = store.objects(f"{prefix}{PARTS}/{run}/")
        store.remove(each.key for each in below if each.key not in named)


def _folders(path: str) -> list[str]:
    """Return what has to be a directory for a path to be there; the tree itself is "" there."""
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts))]
    return ["", *above] if path else []


def _is_behind(later: Mapping[int, StoredObject], earlier: Mapping[int, StoredObject]) -> bool:
    return all(
        node in later and record.modified < later[node].modified for node, record in earlier.items()
    )


def _excess(files: Sequence[MarkedFile], limits: Limits) -> str:
    """Return what of a tree is too much, as a phrase; empty if nothing is."""
    if len(files) > limits.entries:
        return f"it has more than {limits.entries} files"
    if sum(each[1] for each in files) > limits.size_bytes:
        return f"its files have more than {limits.size_bytes} bytes"
    if any(each[0].count("/") > limits.depth for each in files):
        return f"it has directories more than {limits.depth} deep"
    return ""
