"""The checkpoints of a job: those that are whole, with the files that their marks name.

Where several nodes have written a checkpoint, its files are in parts of it, and
the mark alone says which. The functions block, for threads, and raise OSError
and `ApiError`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from app.drive.bucket.keys import can_be_named, key_behind, key_of, nothing_there, stat
from app.drive.drive import Item, Page, PageRequest
from app.drive.paths import DrivePath
from app.drive.versions import Version
from app.errors import FILE_NOT_SERVED, ApiError
from app.files.directory import LimitReached
from app.objects.published import COMPLETE, PublishedTrees
from app.objects.store import KeyFolder, ObjectStore, StoredObject
from app.objects.trees import Member

#: Entries of a page: a mark is read for each.
_MOST: Final = 100
#: Bytes of a mark that is read to serve what is in a checkpoint: parsing it holds up this process.
_MAX_MARK: Final = 4 * 1024 * 1024
#: Bytes of the mark of a checkpoint that is one file, at most.
_ONE_FILE: Final = 4 * 1024


def read(
    store: ObjectStore, tenant_id: str, path: DrivePath, page: PageRequest
) -> StoredObject | Page:
    """Return the file that is there, or list the folder."""
    top = DrivePath(path.parts[:3])
    trees = PublishedTrees(store, f"{key_of(store, tenant_id, top)}/")
    if len(path.parts) == 3:
        return _all(store, trees, page)
    # Its key may be another one, and is bounded all the same.
    key_of(store, tenant_id, path)
    try:
        members = trees.members(path.parts[3], limit=_MAX_MARK)
    except LimitReached:
        raise ApiError(
            FILE_NOT_SERVED, "The checkpoint has more files than are served one by one."
        ) from None
    except ValueError:
        raise nothing_there() from None
    below = "/".join(path.parts[4:])
    for member in members:
        if member.path == below and not path.only_folder:
            return _found(store, member)
    return _listed(members, f"{below}/" if below else "", page)


def _all(store: ObjectStore, trees: PublishedTrees, page: PageRequest) -> Page:
    marks = f"{trees.prefix}{COMPLETE}/"
    behind = key_behind(page.after)
    size = min(page.size, _MOST)
    items: list[Item] = []
    last = ""
    for mark in store.children(marks, after=marks + behind if behind else "", page=size + 1):
        name = mark.key.removeprefix(marks)
        if isinstance(mark, KeyFolder) or name.startswith("."):
            continue
        if len(items) == size:
            return Page(tuple(items), last.encode())
        if (item := _tree(trees, name, mark)) is not None:
            items.append(item)
            last = name
    if not items and next(store.objects(trees.prefix, limit=1), None) is None:
        raise nothing_there()
    return Page(tuple(items), None)


def _tree(trees: PublishedTrees, name: str, mark: StoredObject) -> Item | None:
    """Return a checkpoint as an entry; None if its mark is none, or gone."""
    version = None
    if mark.size <= _ONE_FILE:
        try:
            members = trees.members(name, limit=_ONE_FILE)
        except (FileNotFoundError, LimitReached, ValueError):
            return None
        if [each.path for each in members] == [""]:
            stored = members[0].stored
            version = Version.of_object(stored.size, mark.modified, stored.etag)
    kind = "folder" if version is None else "file"
    return Item(name, kind, mark.modified * 1000, can_be_named(name), version)


def _found(store: ObjectStore, member: Member) -> StoredObject:
    found = stat(store, member.stored.key)
    if found is None or (found.size, found.etag) != (member.stored.size, member.stored.etag):
        # It is being removed, or written anew.
        raise nothing_there()
    return found


def _listed(members: Sequence[Member], prefix: str, page: PageRequest) -> Page:
    """Return a page of what is directly below a prefix, in the order of keys."""
    behind = key_behind(page.after).encode()
    entries = _children(members, prefix)
    if not entries:
        raise nothing_there()
    names = sorted((name for name in entries if name.encode() > behind), key=str.encode)
    items = tuple(_item(name, entries[name]) for name in names[: page.size])
    more = names[page.size - 1].encode() if len(names) > page.size else None
    return Page(items, more)


def _children(members: Iterable[Member], prefix: str) -> dict[str, Member]:
    """Return what is directly below a prefix, by name; a folder's ends with a slash."""
    found: dict[str, Member] = {}
    for member in members:
        if member.path.startswith(prefix) and member.path != prefix:
            name, slash, _ = member.path.removeprefix(prefix).partition("/")
            found.setdefault(name + slash, member)
    return found


def _item(name: str, member: Member) -> Item:
    if name.endswith("/"):
        name = name.removesuffix("/")
        return Item(name, "folder", None, can_be_named(name), None)
    version = Version.of_object(member.stored.size, 0, member.stored.etag)
    # The mark has no time of it.
    return Item(name, "file", None, can_be_named(name), version)
