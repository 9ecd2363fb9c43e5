"""Uploads on the disk: for each a file of what has come, and one of what is known about it.

`<id>.data` is made first and goes last, so that where only `<id>.json` is there, the
file was put into its place. The functions block, for threads, and raise OSError and
`ApiError`.
"""

import fcntl
import heapq
import os
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from app.drive.drive import Stored
from app.drive.folder import staging
from app.drive.folder.placing import Placement
from app.drive.paths import DrivePath
from app.drive.uploads import MAX_INFO, MOST_UPLOADS, UploadInfo, UploadState
from app.errors import PAYLOAD_TOO_LARGE, RATE_LIMITED, UPLOAD_LOCKED, UPLOAD_NOT_FOUND, ApiError
from app.files.directory import Directory, NotARegularFile
from app.files.removing import remove_tree

_DATA: Final = ".data"
_INFO: Final = ".json"
#: Seconds for which what is being made or removed may look like what a crash left.
_GRACE: Final = 60.0
#: Finished ones that are known.
MOST_FINISHED: Final = 1_000
#: What `stat` calls a block.
_BLOCK: Final = 512
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_info(directory: Directory, upload_id: str) -> UploadInfo:
    """Read what is stored about an upload. Raises `ApiError` (`UPLOAD_NOT_FOUND`)."""
    try:
        with directory.open_file(upload_id + _INFO) as file:
            return UploadInfo.parse(file.read(MAX_INFO))
    except (FileNotFoundError, NotARegularFile, ValueError):
        raise ApiError(UPLOAD_NOT_FOUND) from None


def _write_info(directory: Directory, info: UploadInfo) -> None:
    """Store what is known about an upload, durably."""
    with directory.create(info.upload_id + _INFO, mode=0o600, durable=True) as file:
        file.write(info.dump())


def create(root: Path, tenant_id: str, info: UploadInfo) -> None:
    """Make an upload of which nothing has come yet.

    Of more than MOST_FINISHED that are finished, those are forgotten that have been so
    for longest. Raises `ApiError` (`RATE_LIMITED`) if the tenant has too many others.
    """
    with staging.staging_of(root, tenant_id) as own, staging.locked(own):
        names = {entry.name for entry in own.scan()}
        unfinished = sum(name.endswith(_DATA) for name in names)
        if unfinished >= MOST_UPLOADS:
            raise ApiError(
                RATE_LIMITED,
                f"Your tenant has {unfinished} unfinished uploads, of at most {MOST_UPLOADS}."
                " Finish or end some first.",
            )
        _forget_finished(own, names)
        os.close(os.open(info.upload_id + _DATA, _CREATE, 0o666, dir_fd=own.descriptor))
        _write_info(own, info)


def _forget_finished(own: Directory, names: Set[str]) -> None:
    """Make room for one more upload that will be finished. The tenant's lock is held."""
    finished = [
        name
        for name in names
        if name.endswith(_INFO) and name.removesuffix(_INFO) + _DATA not in names
    ]
    if len(finished) < MOST_FINISHED:
        return
    ended_at: list[tuple[float, str]] = []
    for name in finished:
        with suppress(FileNotFoundError):
            ended_at.append((own.stat(name).st_mtime, name))
    for _, name in heapq.nsmallest(len(finished) - MOST_FINISHED + 1, ended_at):
        with suppress(FileNotFoundError):
            own.unlink(name)


class OpenUpload:
    """An upload that nobody else writes to as long as this is open. For one thread at a time."""

    def __init__(self, root: Path, tenant_id: str, upload_id: str, *, lifetime: float) -> None:
        """Open it. Raises `ApiError` (`UPLOAD_NOT_FOUND`, `UPLOAD_LOCKED`)."""
        self._root = root
        self._tenant_id = tenant_id
        self._lifetime = lifetime
        self._descriptor: int | None = None
        with staging.staging_of(root, tenant_id) as own:
            self.info = read_info(own, upload_id)
            self._info_changed = own.stat(upload_id + _INFO).st_mtime
            with suppress(FileNotFoundError):
                self._descriptor = os.open(upload_id + _DATA, _APPEND, dir_fd=own.descriptor)
            try:
                self._take(own)
            except BaseException:
                self.close()
                raise
        #: Bytes that had come then.
        self.opened_at = self.offset

    def _take(self, own: Directory) -> None:
        if self._descriptor is not None:
            _lock(self._descriptor)
            # Whoever had it until now may have put it into its place: it is theirs no more.
            if not _is_at(self._descriptor, own, self.info.upload_id + _DATA):
                self.close()
                self.info = read_info(own, self.info.upload_id)
        if self._expires_at() <= time.time():
            raise ApiError(UPLOAD_NOT_FOUND)

    @property
    def finished(self) -> bool:
        """Whether the file is in its place."""
        return self._descriptor is None

    @property
    def offset(self) -> int:
        """Bytes that have come."""
        if self._descriptor is None:
            return self.info.length or 0
        return os.fstat(self._descriptor).st_size

    @property
    def complete(self) -> bool:
        """Whether all bytes have come, and the file is not in its place."""
        return not self.finished and self.offset == self.info.length

    def state(self) -> UploadState:
        """Return how far it is."""
        return UploadState(self.info, self.offset, self._expires_at())

    def set_length(self, length: int) -> None:
        """Note how many bytes the file has, where that was not known."""
        self.info = replace(self.info, length=length)
        with staging.staging_of(self._root, self._tenant_id) as own:
            _write_info(own, self.info)

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises `ApiError` for more than the file has."""
        assert self._descriptor is not None, "it is not finished"
        offset = self.offset
        if self.info.length is not None and offset + len(data) > self.info.length:
            raise ApiError(
                PAYLOAD_TOO_LARGE, f"The upload has {self.info.length} bytes, as it was said to."
            )
        staging.write_all(self._descriptor, data, offset)

    def sync(self) -> None:
        """Wait until what has come is on the disk; another thread may go on writing."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def cut(self, offset: int) -> None:
        """Forget what has come behind an offset."""
        assert self._descriptor is not None, "it is not finished"
        os.ftruncate(self._descriptor, offset)

    def placement(self) -> Placement | None:
        """Return what puts the file into its place; None unless that alone is missing."""
        if not self.complete:
            return None
        self.sync()
        path = DrivePath.of(self.info.path)
        return Placement(self._root, self._tenant_id, path, self.info.upload_id + _DATA)

    def put(self, placement: Placement) -> Stored | None:
        """Put the file into its place, as `Placement` does; then the upload is finished.

        Raises `ApiError`; then it is tried again when asked.
        """
        stored = placement.put(self.info.preconditions)
        if stored is not None:
            self.close()
            self.info = replace(self.info, stored=stored.version.tag)
            with staging.staging_of(self._root, self._tenant_id) as own:
                _write_info(own, self.info)
        return stored

    def remove(self) -> None:
        """End the upload; what has come goes."""
        with staging.staging_of(self._root, self._tenant_id) as own:
            _remove(own, self.info.upload_id)

    def close(self) -> None:
        """Let others write to it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _expires_at(self) -> float:
        descriptor = self._descriptor
        changed = self._info_changed if descriptor is None else os.fstat(descriptor).st_mtime
        return self.info.expires_at(changed, self._lifetime)


def peek(root: Path, tenant_id: str, upload_id: str, *, lifetime: float) -> UploadState:
    """Return how far an upload is that somebody else writes to. Raises `ApiError`."""
    with staging.staging_of(root, tenant_id) as own:
        info = read_info(own, upload_id)
        try:
            about = own.stat(upload_id + _DATA)
        except FileNotFoundError:
            offset, changed = info.length or 0, info.created_at
        else:
            offset, changed = about.st_size, about.st_mtime
    return UploadState(info, offset, info.expires_at(changed, lifetime))


def declared_bytes(own: Directory) -> int:
    """Return what the uploads in a staging folder will take: their lengths, or what has come.

    What is known about them takes blocks, too.
    """
    total = 0
    for entry in own.scan():
        if entry.name.endswith(_INFO):
            with suppress(FileNotFoundError):
                total += own.stat(entry.name).st_blocks * _BLOCK
        if entry.name.endswith(_DATA):
            upload_id = entry.name.removesuffix(_DATA)
            with suppress(FileNotFoundError, ApiError):
                length = read_info(own, upload_id).length or 0
                total += max(length, own.stat(entry.name).st_size)
    return total


def lacking_bytes(own: Directory) -> int:
    """Return what the uploads in a staging folder have not received of their lengths."""
    total = 0
    for entry in own.scan():
        if entry.name.endswith(_DATA):
            with suppress(FileNotFoundError, ApiError):
                length = read_info(own, entry.name.removesuffix(_DATA)).length or 0
                total += max(0, length - own.stat(entry.name).st_size)
    return total


def clear(root: Path, tenant_id: str, *, lifetime: float) -> int:
    """Remove uploads that have expired, and what crashes left; returns how many uploads."""
    now, expired = time.time(), 0
    with staging.staging_of(root, tenant_id) as own:
        for entry in list(own.scan()):
            with suppress(FileNotFoundError):
                if entry.name.startswith(staging.TRASH):
                    remove_tree(own, entry.name)
                elif entry.name.endswith(_INFO):
                    expired += _clear_upload(own, entry.name.removesuffix(_INFO), now, lifetime)
                elif entry.name != staging.LOCK and _is_left(own, entry.name, now):
                    own.unlink(entry.name)
    return expired


def _clear_upload(own: Directory, upload_id: str, now: float, lifetime: float) -> bool:
    try:
        info = read_info(own, upload_id)
    except ApiError:
        # It cannot be read: nobody can go on with it.
        if own.stat(upload_id + _INFO).st_mtime + lifetime <= now:
            _remove(own, upload_id)
        return False
    try:
        about = own.stat(upload_id + _DATA)
    except FileNotFoundError:
        # Of a finished upload only this is left, for a client that has not heard of it.
        changed = own.stat(upload_id + _INFO).st_mtime
        if changed + lifetime <= now:
            own.unlink(upload_id + _INFO)
        return False
    if info.expires_at(about.st_mtime, lifetime) > now or _in_use(own, upload_id + _DATA):
        return False
    _remove(own, upload_id)
    return True


def _is_left(own: Directory, name: str, now: float) -> bool:
    """Whether nobody works with a file any more that belongs to nothing."""
    if own.stat(name).st_mtime + _GRACE > now:
        return False
    if name.endswith(_DATA) and own.exists(name.removesuffix(_DATA) + _INFO):
        return False
    return not _in_use(own, name)


def _is_at(descriptor: int, own: Directory, name: str) -> bool:
    """Whether a name still is that of an open file."""
    about = os.fstat(descriptor)
    try:
        there = own.stat(name)
    except FileNotFoundError:
        return False
    return (about.st_dev, about.st_ino) == (there.st_dev, there.st_ino)


def _in_use(own: Directory, name: str) -> bool:
    try:
        with own.open_file(name) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _remove(own: Directory, upload_id: str) -> None:
    for name in (upload_id + _INFO, upload_id + _DATA):
        with suppress(FileNotFoundError):
            own.unlink(name)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ApiError(UPLOAD_LOCKED, retry_after=1) from None
