"""An upload to a store that a request has alone: what comes is gathered into parts.

The functions block, for one thread at a time, and raise OSError and `ApiError`.
"""

import time
from dataclasses import replace

from app.drive.bucket.keys import key_of, stat
from app.drive.bucket.tree import version_of
from app.drive.bucket.upload_records import Record, Records
from app.drive.bucket.writing import check_part, part_size, placed
from app.drive.drive import Stored
from app.drive.paths import DrivePath, check_writable
from app.drive.uploads import UploadInfo, UploadState
from app.errors import PAYLOAD_TOO_LARGE, UPLOAD_LOCKED, UPLOAD_NOT_FOUND, ApiError
from app.objects.store import ObjectStore
from app.objects.uploads import Condition, StoredPart


def create(store: ObjectStore, tenant_id: str, info: UploadInfo) -> None:
    """Make an upload of which nothing has come yet. Raises `ApiError` if there are too many."""
    records = Records(store, tenant_id)
    records.check_room()
    records.write(Record(info=info, part=part_size(info.length)))


class OpenUpload:
    """What has come since the last part is in memory, and in the store when `sync` has returned.

    With `whole`, the parts do not count either before that.
    """

    def __init__(
        self, store: ObjectStore, tenant_id: str, upload_id: str, *, lifetime: float, whole: bool
    ) -> None:
        """Open it. Raises `ApiError` (`UPLOAD_NOT_FOUND`)."""
        self._store = store
        self._tenant_id = tenant_id
        self._lifetime = lifetime
        self._whole = whole
        self._records = Records(store, tenant_id)
        self._record, self._changed_at = self._records.read(upload_id)
        if self._expires_at() <= time.time():
            raise ApiError(UPLOAD_NOT_FOUND)
        self._path = DrivePath.of(self._record.info.path)
        self._key = key_of(store, tenant_id, self._path)
        tail = 0 if self.finished else self._records.tail_size(self._record)
        #: What has come behind the parts; None until it is needed.
        self._came: bytearray | None = None
        #: How many parts the store has been told of, and how many bytes behind them.
        self._kept = (self._record.parts, tail)
        self._broken = False

    @property
    def info(self) -> UploadInfo:
        """What is known about it."""
        return self._record.info

    @property
    def finished(self) -> bool:
        """Whether the file is in its place."""
        return bool(self._record.info.stored)

    @property
    def offset(self) -> int:
        """Bytes that have come."""
        if self.finished:
            return self.info.length or 0
        behind = self._kept[1] if self._came is None else len(self._came)
        return self._record.parts * self._record.part + behind

    def state(self) -> UploadState:
        """Return how far it is."""
        return UploadState(self.info, self.offset, self._expires_at())

    def set_length(self, length: int) -> None:
        """Note how many bytes the file has, where that was not known."""
        self._change(info=replace(self.info, length=length))

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises `ApiError` for more than the file has."""
        length = self.info.length
        if length is not None and self.offset + len(data) > length:
            raise ApiError(PAYLOAD_TOO_LARGE, f"The upload has {length} bytes, as it was said to.")
        came = self._behind()
        came += data
        while len(self._behind()) >= self._record.part:
            try:
                self._send_part()
            except BaseException:
                # What came behind it would be kept without it.
                self._broken = True
                raise

    def _behind(self) -> bytearray:
        """Return what has come behind the parts. Raises `ApiError` if another replica has changed
        it."""
        if self._came is None:
            came = bytearray(self._records.tail(self._record))
            if len(came) != self._kept[1]:
                raise ApiError(UPLOAD_LOCKED, retry_after=1)
            self._came = came
        return self._came

    def _send_part(self) -> None:
        number, size = self._record.parts + 1, self._record.part
        check_part(number, size)
        if not self._record.upload:
            upload = self._store.uploads.begin(self._key)
            self._change(upload=upload)
        came = self._behind()
        content = bytes(memoryview(came)[:size])
        del came[:size]
        self._store.uploads.send(self._key, self._record.upload, number, content)
        self._record = replace(self._record, parts=number)
        if not self._whole:
            self._keep_parts()

    def sync(self) -> None:
        """Have what has come kept."""
        if self.finished or self._broken or self._came is None:
            return
        if self._kept != (self._record.parts, len(self._came)):
            self._records.write_tail(self._record, bytes(self._came))
            if self._kept[0] != self._record.parts:
                self._keep_parts()
            self._kept = (self._record.parts, len(self._came))
            self._changed_at = time.time()

    def _keep_parts(self) -> None:
        self._records.write(self._record)
        self._records.remove_tails(self._record)
        self._kept = (self._record.parts, 0)
        self._changed_at = time.time()

    def finish(self) -> Stored | None:
        """Put the file into its place if all of it has come; None if not. After `sync`."""
        if self.finished or self.offset != self.info.length:
            return None
        check_writable(self._path)
        if self._record.parts and self._is_over():
            return self._found_there()
        stored = placed(
            self._store, self._tenant_id, self._path, self.info.preconditions, self._put
        )
        self._end(stored)
        return stored

    def _put(self, condition: Condition) -> None:
        uploads, record = self._store.uploads, self._record
        if not record.parts:
            uploads.put(self._key, bytes(self._behind()), condition)
            if record.upload:
                uploads.abort(self._key, record.upload)
            return
        parts = uploads.parts(self._key, record.upload)[: record.parts]
        expected = [(number, record.part) for number in range(1, record.parts + 1)]
        if [(each.number, each.size) for each in parts] != expected:
            # Somebody else has ended it, or written there.
            raise ApiError(UPLOAD_NOT_FOUND)
        if came := self._behind():
            number = record.parts + 1
            check_part(number, record.part)
            parts.append(uploads.send(self._key, record.upload, number, bytes(came)))
        uploads.complete(self._key, record.upload, parts, condition)

    def _is_over(self) -> bool:
        try:
            self._parts()
        except FileNotFoundError:
            return True
        return False

    def _parts(self) -> list[StoredPart]:
        return self._store.uploads.parts(self._key, self._record.upload)

    def _found_there(self) -> Stored:
        """Return the file of an upload that was put into its place, and then nobody could note
        it. Raises `ApiError` if it is not there."""
        found = stat(self._store, self._key)
        if found is None or found.size != self.info.length:
            self._records.remove(self.info.upload_id)
            raise ApiError(UPLOAD_NOT_FOUND)
        stored = Stored(version_of(found), None, 0)
        self._end(stored)
        return stored

    def _end(self, stored: Stored) -> None:
        self._record = self._records.finish(self._record, stored.version.tag)
        self._came = None

    def remove(self) -> None:
        """End the upload; what has come goes."""
        if self.finished:
            self._records.remove_done(self.info.upload_id)
            return
        abort(self._store, self._tenant_id, self._record)
        self._broken = True

    def close(self) -> None:
        """Keep what has come, unless it counts as a whole alone."""
        if not self._whole:
            self.sync()

    def _change(self, **changes: object) -> None:
        """Change what is known; parts that do not count yet are not among that."""
        fresh = replace(self._record, **changes)  # type: ignore[arg-type]  # by their names
        self._records.write(replace(fresh, parts=self._kept[0]))
        self._record = fresh

    def _expires_at(self) -> float:
        return self.info.expires_at(self._changed_at, self._lifetime)


def abort(store: ObjectStore, tenant_id: str, record: Record) -> None:
    """Have what has come of an upload go."""
    if record.upload:
        key = key_of(store, tenant_id, DrivePath.of(record.info.path))
        store.uploads.abort(key, record.upload)
    Records(store, tenant_id).remove(record.info.upload_id)
