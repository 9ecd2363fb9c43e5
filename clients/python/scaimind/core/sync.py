"""A folder on the drive brought up to date: by content, with one list of what was brought.

The list is a file in the folder. It has each file's digest, and the version that
was stored: a file is sent only if one of them is another now, and only what was
brought is ever removed.
"""

import json
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any, Final

from scaimind.core.commands import Command, Emit, Request
from scaimind.core.files import DRIVE, LocalFile, Synced, list_folder, place, remove, upload
from scaimind.core.retries import call, exchange
from scaimind.core.steps import collect
from scaimind.errors import NotFound

#: The list's name in the folder.
LIST: Final = ".scaimind-sync.json"


def sync(files: Sequence[LocalFile], path: str, *, delete: bool) -> Generator[Command, Any, Synced]:
    """Bring files into a folder; emit the name of each that is sent, before it is.

    With `delete`, files that an earlier call brought and that are not among
    `files` are removed.
    """
    known = yield from _read_list(path)
    folders = {"", *(each.name.rpartition("/")[0] for each in files)}
    versions = yield from _versions(path, folders if known else set())
    done = Synced()
    listed: dict[str, dict[str, str]] = {}
    changed = False
    for file in files:
        before = known.get(file.name, {})
        if before.get("sha256") == file.digest and before.get("etag") == versions.get(file.name):
            listed[file.name] = before
            done.unchanged.append(file.name)
            continue
        yield Emit(file.name)
        stored, _ = yield from collect(upload(file.path, file.size, f"{path}/{file.name}"))
        listed[file.name] = {"sha256": file.digest, "etag": stored.etag}
        done.stored.append(file.name)
        changed = True
    for name in sorted(known.keys() - listed.keys()):
        if not delete:
            listed[name] = known[name]
            continue
        with suppress(NotFound):
            yield from remove(f"{path}/{name}", recursive=False)
        done.removed.append(name)
        changed = True
    if changed:
        content = json.dumps({"files": listed}, indent=1, sort_keys=True).encode()
        yield from exchange(
            Request("PUT", f"{place(path)}/{LIST}", content=content, timeout=120.0, root=DRIVE)
        )
    return done


def _read_list(path: str) -> Generator[Command, Any, dict[str, dict[str, str]]]:
    try:
        value = yield from call(Request("GET", f"{place(path)}/{LIST}", root=DRIVE))
    except NotFound:
        return {}
    found = value.get("files") if isinstance(value, dict) else None
    return {
        str(name): each
        for name, each in (found.items() if isinstance(found, dict) else ())
        if isinstance(each, dict)
    }


def _versions(path: str, folders: set[str]) -> Generator[Command, Any, dict[str, str]]:
    """Return the version of each file in some folders below a path."""
    versions: dict[str, str] = {}
    for folder in sorted(folders):
        below = f"{folder}/" if folder else ""
        try:
            _, entries = yield from collect(list_folder(f"{path}/{folder}"))
        except NotFound:
            continue
        versions |= {
            below + each.name: each.etag for each in entries if each.kind == "file" and each.etag
        }
    return versions
