"""Paths as keys, and what of a tenant's objects is the coordinator's own."""

import errno
import os
import re
from typing import Final

from app.drive.paths import DrivePath, is_name
from app.errors import FILE_CONFLICT, FILE_NAME_INVALID, VALIDATION_ERROR, ApiError, FieldProblem
from app.objects.store import ObjectStore, StoredObject

#: Characters that XML 1.0 has not, and DEL: objects are removed by a list of keys in XML.
_BAD: Final = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")
#: What a job has published, beside its checkpoints (decision 0047).
_KEPT: Final = ".kept"
#: Beside the tenants' folders; no tenant's name begins with a dot.
UPLOADS: Final = ".uploads"
#: Bytes of a name in the store: as many as a key has.
_MAX_TOKEN: Final = 1024


def key_of(store: ObjectStore, tenant_id: str, path: DrivePath) -> str:
    """Return the key of a file; the tenant's folder itself has the tenant's id. Raises
    `ApiError`."""
    if not all(map(has_no_controls, path.parts)):
        raise ApiError(
            FILE_NAME_INVALID,
            "This drive has no names with control characters, U+FFFE or U+FFFF.",
        )
    key = "/".join((tenant_id, *path.parts))
    # A folder's has a slash behind it.
    most = store.longest_key - 1
    if (size := len(key.encode())) > most:
        raise ApiError(
            FILE_NAME_INVALID,
            f"The path is too long: this drive has at most {most - size + len(str(path).encode())}"
            " bytes for it.",
        )
    return key


def can_be_named(name: str) -> bool:
    """Whether a path can lead to an entry of this name."""
    return is_name(name.encode()) and has_no_controls(name)


def has_no_controls(name: str) -> bool:
    """Whether a name has none of the characters that XML cannot carry, and stores stumble over."""
    return not _BAD.search(name)


def is_hidden(path: DrivePath) -> bool:
    """Whether the coordinator alone deals with what is there: what a job has published, and what
    says which of its checkpoints are whole."""
    parts = path.parts
    if len(parts) < 3 or parts[0] != "jobs":
        return False
    return parts[2] == _KEPT or (
        len(parts) > 3 and path.in_checkpoints and parts[3].startswith(".")
    )


def check_not_hidden(path: DrivePath) -> None:
    """Raise `ApiError` if callers may not change what is there."""
    if is_hidden(path):
        raise ApiError(FILE_CONFLICT, f"What is in {_KEPT!r} belongs to its job.")


def key_behind(token: bytes) -> str:
    """Read what a page follows: a name, of a folder with a slash. Raises `ApiError`."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or "/" in text.removesuffix("/") or len(token) > _MAX_TOKEN:
        problem = FieldProblem("page_token", "Must be the next_page_token of a page.")
        raise ApiError(VALIDATION_ERROR, details=[problem])
    return text


def kept_of(job: DrivePath) -> DrivePath:
    """Return where a job's folder has what it has published."""
    return DrivePath((*job.parts, _KEPT), only_folder=True)


def stat(store: ObjectStore, key: str) -> StoredObject | None:
    """Return the object under a key, None if there is none."""
    found = next(store.objects(key, limit=1), None)
    return found if found is not None and found.key == key else None


def nothing_there() -> FileNotFoundError:
    """Return what is raised where there is no file and no folder."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
