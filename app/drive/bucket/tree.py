"""A tenant's objects as files and folders: found, listed and removed.

A folder is there as long as a key has its name before a slash. A key that is a
file's and a folder's at once is the file; with a slash at its end a path means
the folder. The functions block, for threads, and raise OSError and `ApiError`.
"""

from dataclasses import dataclass
from typing import Final

from app.drive.bucket import checkpoints
from app.drive.bucket.keys import (
    can_be_named,
    is_hidden,
    kept_of,
    key_behind,
    key_of,
    nothing_there,
    stat,
)
from app.drive.drive import Item, Page, PageRequest
from app.drive.paths import DrivePath
from app.drive.versions import Preconditions, Version
from app.errors import FILE_CONFLICT, ApiError
from app.objects.store import KeyFolder, ObjectStore, StoredObject

#: Objects that go in one call.
_BATCH: Final = 1000


def version_of(found: StoredObject) -> Version:
    """Return the version of a file."""
    return Version.of_object(found.size, found.modified, found.etag)


def has_any(store: ObjectStore, prefix: str) -> bool:
    """Return whether a key begins so."""
    return next(store.objects(prefix, limit=1), None) is not None


def read(
    store: ObjectStore, tenant_id: str, path: DrivePath, page: PageRequest
) -> StoredObject | Page:
    """Return the file that is there, or list the folder; a tenant's own is empty until it is made.

    Of checkpoints those are there that are whole.
    """
    if is_hidden(path):
        raise nothing_there()
    if path.in_checkpoints:
        return checkpoints.read(store, tenant_id, path, page)
    key = key_of(store, tenant_id, path)
    if not path.only_folder and (found := stat(store, key)) is not None:
        return found
    return _listed(store, tenant_id, path, f"{key}/", page)


def _listed(
    store: ObjectStore, tenant_id: str, path: DrivePath, prefix: str, page: PageRequest
) -> Page:
    behind = key_behind(page.after)
    items: list[Item] = []
    last = ""
    for each in store.children(prefix, after=prefix + behind if behind else "", page=page.size + 1):
        name = each.key.removeprefix(prefix)
        if is_hidden(DrivePath((*path.parts, name.removesuffix("/")))):
            continue
        if len(items) == page.size:
            return Page(tuple(items), last.encode())
        items.append(_item(each, name))
        last = name
    if not items and not path.is_root and not has_any(store, prefix):
        raise nothing_there()
    return Page(tuple(items), None)


def _item(found: StoredObject | KeyFolder, name: str) -> Item:
    if isinstance(found, KeyFolder):
        name = name.removesuffix("/")
        return Item(name, "folder", None, can_be_named(name), None)
    version = version_of(found)
    return Item(name, "file", version.modified_ns, can_be_named(name), version)


def conflicts(store: ObjectStore, tenant_id: str, path: DrivePath) -> None:
    """Raise `ApiError` if there is a folder at a file's path, or a file above it."""
    key = key_of(store, tenant_id, path)
    if has_any(store, f"{key}/"):
        raise ApiError(FILE_CONFLICT, "A folder is at the path.")
    while "/" in (key := key.rpartition("/")[0]):
        # The object of that very key would be the first.
        found = next(store.objects(key, limit=1), None)
        if found is not None and found.key == key:
            raise ApiError(FILE_CONFLICT, "What is above the path is not a folder.")
        if has_any(store, f"{key}/"):
            # It was made where no file was above it.
            return


@dataclass(frozen=True, slots=True)
class Gone:
    """What a call has removed."""

    size: int
    #: The folder of which more is left, if there is more.
    folder: str = ""


def delete(
    store: ObjectStore,
    tenant_id: str,
    path: DrivePath,
    *,
    recursive: bool,
    preconditions: Preconditions,
) -> Gone:
    """Delete a file, or say which folder is to be emptied by `remove_some`."""
    key = key_of(store, tenant_id, path)
    if not path.only_folder and (found := stat(store, key)) is not None:
        preconditions.check(version_of(found))
        store.remove([key])
        return Gone(found.size)
    prefix = f"{key}/"
    below = [each.key for each in store.objects(prefix, limit=2)]
    if not below:
        raise nothing_there()
    preconditions.check(None)
    # What some clients make for an empty folder.
    if below != [prefix]:
        if not recursive:
            raise ApiError(
                FILE_CONFLICT,
                "The folder is not empty. Send recursive=true to delete all that is in it.",
            )
        if path.above_checkpoints and _may_hold_checkpoints(store, tenant_id, path):
            raise ApiError(
                FILE_CONFLICT,
                "The folder has, or may have, checkpoints, which go when their job is deleted."
                " Delete what else is in it one by one.",
            )
    return Gone(0, prefix)


def remove_some(store: ObjectStore, folder: str) -> Gone:
    """Remove some of what is in a folder."""
    found = list(store.objects(folder, limit=_BATCH))
    store.remove([each.key for each in found])
    size = sum(each.size for each in found)
    return Gone(size, folder if len(found) == _BATCH else "")


def _may_hold_checkpoints(store: ObjectStore, tenant_id: str, path: DrivePath) -> bool:
    key = key_of(store, tenant_id, path)
    if len(path.parts) == 1:
        # Any folder in it may be a job's, which gets checkpoints at any moment.
        return any(isinstance(each, KeyFolder) for each in store.children(f"{key}/", page=_BATCH))
    return has_any(store, f"{key}/checkpoints/") or has_any(
        store, f"{key_of(store, tenant_id, kept_of(path))}/"
    )
