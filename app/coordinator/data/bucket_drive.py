"""The drive in an object store: what a coordinator asks of it, and where its objects are.

    scaidrive://<tenant>/<path>          <tenant>/<path>, or all below <tenant>/<path>/
    scaiatlas://<tenant>/<name>@<n>      .atlas/<tenant>/<name>/<n>/files/...
    /an/absolute/path                    on the machine that reads it

What a job publishes is below its own folder, in trees that count when they are
whole (`PublishedTrees`): its checkpoints, and in `.kept` its output.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final

from typing_extensions import override

from app.coordinator.data.drive import (
    ATLAS_SCHEME,
    CHECKPOINTS,
    JOB_ID,
    SCHEME,
    BadUrl,
    Drive,
    DriveFileSystem,
    shown,
)
from app.coordinator.errors import FailedPrecondition, InvalidArgument
from app.coordinator.identity.access import Access
from app.files.directory import LimitReached
from app.files.walking import Limits
from app.objects.published import PublishedTrees
from app.objects.store import Listing, ObjectStore, StoredObject
from app.objects.trees import Member, members

#: The folder of the models, which no tenant is called.
ATLAS: Final = ".atlas"
#: The folder of what else a job publishes, and the name of its output there.
KEPT: Final = ".kept"
OUTPUT: Final = "output"
#: What one URL may lead to.
_LIMITS: Final = Limits(entries=250_000)
#: As this program writes a version: others may have put further names there.
_VERSION: Final = re.compile(r"[1-9][0-9]{0,9}")
#: Submissions that are checked at the same time.
_ASKED_AT_ONCE: Final = 8


class BucketDrive(Drive):
    """The objects of all tenants. Blocks: every call raises as those of the store."""

    def __init__(self, root: Path, *, store: ObjectStore, allowed: Sequence[Path] = ()) -> None:
        """`root` is a directory of the coordinator's own, in which nothing is kept."""
        super().__init__(root, atlas=root / ATLAS, allowed=allowed)
        self.store = store
        # Of its own: a store that is slow keeps nobody else waiting.
        self.asking = self._threads = ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="drive")

    def checkpoints(self, tenant_id: str, job_id: str) -> PublishedTrees:
        """Return the checkpoints of a job."""
        return PublishedTrees(self.store, f"{tenant_id}/jobs/{job_id}/{CHECKPOINTS}/")

    def kept(self, tenant_id: str, job_id: str) -> PublishedTrees:
        """Return what else a job has published."""
        return PublishedTrees(self.store, f"{tenant_id}/jobs/{job_id}/{KEPT}/")

    def of_job(self, tenant_id: str, job_id: str) -> tuple[PublishedTrees, ...]:
        """Return all that a job has published, which goes with it."""
        return self.checkpoints(tenant_id, job_id), self.kept(tenant_id, job_id)

    @override
    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.store.close()

    @override
    def filesystem(self, access: Access) -> DriveFileSystem:
        return BucketFileSystem(self, access)

    @override
    def check(self, access: Access, url: str) -> None:
        if not is_in_store(url):
            super().check(access, url)
        elif not self.kind(access, url):
            raise BadUrl(f"{shown(url)} does not exist")

    @override
    def require(self, access: Access, where: str, url: str, *, kind: str = "") -> None:
        if not is_in_store(url):
            super().require(access, where, url, kind=kind)
            return
        try:
            self.key(access, url)
        except BadUrl as error:
            raise InvalidArgument(where, str(error)) from None
        found = self.kind(access, url)
        if not found:
            raise FailedPrecondition(f"{where}: {shown(url)} does not exist")
        if kind and found != kind:
            raise FailedPrecondition(f"{where}: {shown(url)} is not a {kind}")

    @override
    def content(self, access: Access, url: str, name: str, *, limit: int) -> bytes | None:
        if not is_in_store(url):
            return super().content(access, url, name, limit=limit)
        key = f"{self.key(access, url)}/{name}"
        found = next(self.store.objects(key, limit=1), None)
        if found is None or found.key != key:
            return None
        with self.store.open(found) as file:
            return file.read(limit)

    @override
    def pinned(self, access: Access, url: str) -> str:
        if not url.startswith(ATLAS_SCHEME) or "@" in url.rpartition("/")[2]:
            return url
        # Its form, and what the access covers.
        self.place(access, url)
        folder = f"{ATLAS}/{url.removeprefix(ATLAS_SCHEME)}/"
        if not (versions := self.versions(folder)):
            raise BadUrl(f"{shown(url)} does not exist")
        return f"{url}@{versions[-1]}"

    def versions(self, folder: str) -> list[int]:
        """Return the versions of a model that are there as a whole, in order."""
        names = [each.name for each in PublishedTrees(self.store, folder).names()]
        return sorted(int(name) for name in names if _VERSION.fullmatch(name))

    def key(self, access: Access, url: str) -> str:
        """Return where a URL leads: the key of an object, or what lies before a slash in those of
        several. Raises BadUrl for its form, and for what the access does not cover."""
        place = self.place(access, url)
        if url.startswith(ATLAS_SCHEME):
            if "@" not in url:
                return self.key(access, self.pinned(access, url))
            return "/".join((ATLAS, access.tenant_id, *place.parts))
        return "/".join((access.tenant_id, *place.parts))

    def kind(self, access: Access, url: str) -> str:
        """Return `file` or `directory`; empty if nothing is there, or nothing whole. Raises
        BadUrl."""
        key = self.key(access, url)
        if (published := self._published(key)) is not None:
            tree, below = published
            try:
                paths = [member.path for member in tree[0].members(tree[1])]
            except (FileNotFoundError, ValueError):
                return ""
            if below in paths:
                return "file"
            return "directory" if not below or _below(paths, below) else ""
        first = next(self.store.objects(key, limit=1), None)
        if first is not None and first.key == key:
            return "file"
        return "directory" if next(self.store.objects(f"{key}/", limit=1), None) else ""

    def tree(self, access: Access, url: str) -> list[Member]:
        """Return the files that a URL leads to; that of a file has an empty path.

        Raises BadUrl if nothing is there or too much.
        """
        key = self.key(access, url)
        try:
            if (published := self._published(key)) is not None:
                (trees, name), below = published
                return _part(trees.members(name), below)
            first = next(self.store.objects(key, limit=1), None)
            if first is not None and first.key == key:
                return [Member("", first)]
            found = members(self.store, f"{key}/", _LIMITS)
        except LimitReached as error:
            raise BadUrl(f"{shown(url)} is too large: {error.strerror}") from None
        except (FileNotFoundError, ValueError):
            found = []
        if not found:
            raise BadUrl(f"{shown(url)} does not exist")
        return found

    def listing(self, access: Access, url: str, *, limit: int) -> Listing:
        """Return what is directly in the directory that a URL leads to. Raises BadUrl,
        LimitReached."""
        key = self.key(access, url)
        if self._published(key) is None:
            return self.store.listing(f"{key}/", limit=limit)
        # Its files may be in the parts of several nodes.
        objects: list[StoredObject] = []
        folders: set[str] = set()
        for member in self.tree(access, url):
            name, _, below = member.path.partition("/")
            if below:
                folders.add(name)
            elif name:
                objects.append(member.stored)
            if len(objects) + len(folders) > limit:
                raise LimitReached(f"there are more than {limit} entries")
        return Listing(objects, sorted(folders))

    def _published(self, key: str) -> tuple[tuple[PublishedTrees, str], str] | None:
        """Return the trees that a key belongs to, the name of its own, and its path there; None
        where what is there counts as it is."""
        parts = key.split("/")
        if parts[0] == ATLAS and len(parts) > 3:
            # .atlas/<tenant>/<model>/<version>/files
            versions = PublishedTrees(self.store, "/".join((*parts[:3], "")))
            return (versions, parts[3]), "/".join(parts[4:])
        in_job = len(parts) > 4 and parts[1] == "jobs" and JOB_ID.fullmatch(parts[2])
        if in_job and parts[3] == CHECKPOINTS:
            trees = self.checkpoints(parts[0], parts[2])
            return (trees, parts[4]), "/".join(parts[5:])
        return None


def is_in_store(url: str) -> bool:
    """Whether a URL is of the store's, and not of a machine's own files."""
    return url.startswith((SCHEME, ATLAS_SCHEME))


class BucketFileSystem(DriveFileSystem):
    """What one access reaches of a store, to be read; paths are URLs."""

    def __init__(self, drive: BucketDrive, access: Access) -> None:
        super().__init__(drive, access)
        self._bucket = drive

    @override
    def info(self, path: str) -> dict[str, Any]:
        if not is_in_store(path):
            return super().info(path)
        tree = self._bucket.kind(self._access, path)
        if not tree:
            raise BadUrl(f"{shown(path)} does not exist")
        if tree == "directory":
            return {"name": path, "size": 0, "type": tree, "mtime_ns": 0, "ino": 0}
        return _about(path, self._file(path))

    @override
    def ls(self, path: str, detail: bool = True, *, limit: int = 100_000) -> list[Any]:
        if not is_in_store(path):
            return super().ls(path, detail, limit=limit)
        base = path.rstrip("/")
        listing = self._bucket.listing(self._access, path, limit=limit)
        found = [_about(f"{base}/{each.key.rpartition('/')[2]}", each) for each in listing.objects]
        found += [
            {"name": f"{base}/{name}", "size": 0, "type": "directory", "mtime_ns": 0, "ino": 0}
            for name in listing.folders
        ]
        found.sort(key=lambda about: str(about["name"]))
        return found if detail else [about["name"] for about in found]

    @override
    def open(self, path: str) -> BinaryIO:
        if not is_in_store(path):
            return super().open(path)
        return self._bucket.store.open(self._file(path))

    def _file(self, path: str) -> StoredObject:
        tree = self._bucket.tree(self._access, path)
        if [member.path for member in tree] != [""]:
            raise BadUrl(f"{shown(path)} is not a file")
        return tree[0].stored


def _about(url: str, stored: StoredObject) -> dict[str, Any]:
    return {
        "name": url,
        "size": stored.size,
        "type": "file",
        "mtime_ns": stored.modified * 1000,
        "ino": stored.etag,
    }


def _below(paths: Sequence[str], folder: str) -> bool:
    return any(path.startswith(f"{folder}/") for path in paths)


def _part(tree: Sequence[Member], below: str) -> list[Member]:
    """Return the members below a path of a tree, or the one that it names."""
    if not below:
        return list(tree)
    found = [Member("", member.stored) for member in tree if member.path == below]
    return found or [
        Member(member.path.removeprefix(f"{below}/"), member.stored)
        for member in tree
        if member.path.startswith(f"{below}/")
    ]
