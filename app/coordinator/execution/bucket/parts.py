"""What the nodes of a run publish of its trees: each its own part, be there one or several.

    <prefix>.parts/<run>/<node>/...               the objects of a node's parts
    <prefix>.parts/<run>/<node>-<version>/...     of a part that the run wrote anew
    <prefix>.parts/<run>/.complete/<node>/<name>  the record of a part that is there as a whole
    <prefix>.parts/<run>/.ended/<node>            the node publishes nothing more

The number of a run is never used again, and each node writes below its own
keys: what comes late, twice, or of an earlier run changes nothing that counts.
Which trees count, the coordinator decides (`merging`).
"""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from app.files.copying import Report
from app.files.directory import Directory
from app.files.walking import Limits
from app.objects.published import (
    MAX_MARK,
    PARTS,
    is_file,
    upload_whole,
)
from app.objects.store import ObjectStore, StoredObject
from app.objects.trees import is_name

_COMPLETE: Final = ".complete"
_ENDED: Final = ".ended"
#: Records of one run that are looked at.
MOST: Final = 200_000
#: Bytes of what a node says when it has ended.
_MAX_ENDED: Final = 16 * 1024 * 1024
#: Digits of a number in a key.
_DIGITS: Final = 10


@dataclass(frozen=True, slots=True)
class TreePart:
    """What one node has of a tree."""

    node: int
    #: How often its run had written it before.
    version: int = 0
    #: Path, size and version of each file that the node has published.
    files: tuple[tuple[str, int, str], ...] = ()
    #: Paths of those that the node was given when its run began, and has left as they were.
    unchanged: frozenset[str] = frozenset()
    #: The node has nothing of the tree.
    is_nothing: bool = False

    @property
    def folder(self) -> str:
        """Where its run has it."""
        return f"{self.node}-{self.version}" if self.version else str(self.node)


@dataclass(frozen=True, slots=True)
class NodeEnd:
    """What a node says when it publishes nothing more."""

    #: Something that its processes had begun to write was not finished.
    is_unfinished: bool
    #: Names of trees that it has, and has not published.
    unpublished: frozenset[str]

    def has_nothing(self, name: str) -> bool:
        """Whether the node had nothing of a tree that it has not published."""
        return not self.is_unfinished and name not in self.unpublished


@dataclass(frozen=True, slots=True)
class PartRecords:
    """Which records of a run there are."""

    #: Of each tree, by the number of the node.
    parts: Mapping[str, Mapping[int, StoredObject]] = field(default_factory=dict)
    ended: Mapping[int, StoredObject] = field(default_factory=dict)
    #: There are more, which are not looked at.
    is_cut: bool = False


class RunParts:
    """The parts of one run's trees below a prefix. Blocks: call it in a thread.

    Every call raises as those of the store.
    """

    def __init__(self, store: ObjectStore, prefix: str, run: int) -> None:
        """`prefix` is that of the trees, and ends with a slash."""
        self._store = store
        self._run = f"{prefix}{PARTS}/{run}/"

    def records(self) -> PartRecords:
        """Return the records that are there; of very many, not all."""
        parts: dict[str, dict[int, StoredObject]] = {}
        ended: dict[int, StoredObject] = {}
        # Their folders, and no other below the run's, begin with a dot.
        is_cut = False
        for count, stored in enumerate(self._store.objects(f"{self._run}.", limit=MOST + 1), 1):
            if is_cut := count > MOST:
                break
            kind, _, rest = stored.key.removeprefix(self._run).partition("/")
            number, _, name = rest.partition("/")
            if not _is_number(number):
                continue
            if kind == _ENDED and not name:
                ended[int(number)] = stored
            elif kind == _COMPLETE and "/" not in name and is_name(name):
                parts.setdefault(name, {})[int(number)] = stored
        return PartRecords(parts, ended, is_cut)

    def publish(
        self,
        source: Directory,
        name: str,
        abandoned: threading.Event,
        *,
        node: int,
        limits: Limits,
        version: int = 0,
        unchanged: Collection[str] = (),
        skipped: Collection[str] = (),
    ) -> Report:
        """Bring the file or directory `name` in `source` to the store, as a node's part of the
        tree of that name; files whose paths are `skipped` are passed over.

        Raises as `PublishedTrees.publish`.
        """
        part = TreePart(node, version)
        found, report = upload_whole(
            self._store,
            source,
            name,
            f"{self._run}{part.folder}/",
            abandoned,
            limits=limits,
            skipped=skipped,
        )
        files = [(each.path, each.stored.size, each.stored.etag) for each in found]
        about = {"files": files, "version": version, "unchanged": sorted(unchanged)}
        self._store.write(self._record(node, name), orjson.dumps(about))
        return report

    def say_nothing(self, name: str, *, node: int) -> None:
        """Record that a node has nothing of a tree. It may have something later all the same."""
        self._store.write(self._record(node, name), orjson.dumps({"files": [], "nothing": True}))

    def say_ended(self, node: int, end: NodeEnd) -> None:
        """Record that a node publishes nothing more."""
        about = {"unfinished": end.is_unfinished, "unpublished": sorted(end.unpublished)}
        self._store.write(f"{self._run}{_ENDED}/{node}", orjson.dumps(about))

    def read(self, node: int, record: StoredObject) -> TreePart:
        """Read a record. Raises FileNotFoundError, LimitReached; ValueError for one that nobody
        here has written."""
        about = _object(self._store.read(record.key, limit=MAX_MARK))
        files, unchanged = about.get("files"), about.get("unchanged", [])
        version = about.get("version", 0)
        if (
            not isinstance(files, list)
            or not all(is_file(each) and len(each) == 3 for each in files)
            or not _are_texts(unchanged)
            or type(version) is not int
            or not 0 <= version < 10**_DIGITS
        ):
            raise ValueError("it is no record of a part")
        return TreePart(
            node,
            version,
            tuple((each[0], each[1], each[2]) for each in files),
            frozenset(unchanged),
            about.get("nothing") is True,
        )

    def read_end(self, record: StoredObject) -> NodeEnd:
        """Read what a node has said. Raises as `read`."""
        about = _object(self._store.read(record.key, limit=_MAX_ENDED))
        names = about.get("unpublished", [])
        if not _are_texts(names):
            raise ValueError("it is no record of a node's end")
        return NodeEnd(about.get("unfinished") is not False, frozenset(names))

    def remove(self, name: str, records: Mapping[int, StoredObject]) -> None:
        """Remove the parts of a tree that does not count, their records first."""
        folders = []
        for node, record in records.items():
            try:
                folders.append(self.read(node, record).folder)
            except (FileNotFoundError, ValueError):
                folders.append(str(node))
        self.remove_records(records)
        for folder in folders:
            key = f"{self._run}{folder}/{name}"
            self._store.remove([key])
            self._store.remove(each.key for each in self._store.objects(f"{key}/"))

    def remove_records(self, records: Mapping[int, StoredObject]) -> None:
        """Have parts count for no tree any more."""
        self._store.remove(each.key for each in records.values())

    def _record(self, node: int, name: str) -> str:
        return f"{self._run}{_COMPLETE}/{node}/{name}"


def _object(content: bytes) -> dict[str, Any]:
    value = orjson.loads(content)
    if not isinstance(value, dict):
        raise ValueError("it is no record")
    return value


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS
