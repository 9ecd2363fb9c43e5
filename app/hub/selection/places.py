"""The place of a stream over many jobs, as the id of a bookmark.

A header, then for each job whose log or metrics are not at their beginning its
entry, in base64url. Ids and epochs are digests, so that the places of 64 jobs
fit into 3 KiB. The client need not understand it; who makes one up reads no
more than its own selection, from another place.
"""

import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

#: Characters of a place.
MAX_LENGTH: Final = 3072
#: Jobs whose logs and metrics have a place.
MAX_JOBS: Final = 64

#: The form of a place, and of one whose states have to be told anew.
_VERSION: Final = 1
_WHOLE: Final = 2
#: Version of the form, selection, epoch of the states, their version, when it was looked at.
_HEADER: Final = struct.Struct(">B8s8sQI")
#: Job, epoch of its log.
_JOB: Final = struct.Struct(">8s6s")
#: Below it are offsets and sequences.
_END: Final = 10**18


@lru_cache(maxsize=16_384)
def digest(text: str) -> bytes:
    """Return the eight bytes that stand for an id or an epoch; the first six for a log's epoch."""
    return hashlib.sha256(text.encode()).digest()[:8]


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A place in a job's log and its metrics; `epoch` is a digest of six bytes."""

    epoch: bytes
    #: Everything up to here was delivered that passes the filter.
    offset: int
    #: Of the newest snapshot that was delivered.
    sequence: int = 0

    @property
    def at_beginning(self) -> bool:
        """Whether nothing was delivered."""
        return not self.offset and not self.sequence


@dataclass(frozen=True, slots=True)
class Place:
    """Everything up to here was delivered."""

    #: Digests of eight bytes.
    selection: bytes
    epoch: bytes
    version: int
    #: Up to when jobs were looked at that ended too long ago, in whole seconds since 1970.
    looked: int
    #: By the job's digest of eight bytes.
    logs: Mapping[bytes, LogPlace] = field(default_factory=dict)
    #: Whether who comes back is told the whole state: jobs were left out, which no version says.
    whole: bool = False

    def __str__(self) -> str:
        """Write it as an SSE id."""
        form = _WHOLE if self.whole else _VERSION
        written = bytearray(
            _HEADER.pack(form, self.selection, self.epoch, self.version, self.looked)
        )
        for job, place in self.logs.items():
            written += _JOB.pack(job, place.epoch)
            written += _written(place.offset) + _written(place.sequence)
        return urlsafe_b64encode(written).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read what `__str__` wrote. Raises `ValueError` on anything else."""
        if len(text) > MAX_LENGTH or not text.isascii():
            raise ValueError("not the id of a bookmark")
        try:
            data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except Base64Error:
            raise ValueError("not the id of a bookmark") from None
        if len(data) < _HEADER.size or data[0] not in (_VERSION, _WHOLE):
            raise ValueError("not the id of a bookmark")
        form, selection, epoch, version, looked = _HEADER.unpack_from(data)
        logs: dict[bytes, LogPlace] = {}
        at = _HEADER.size
        while at < len(data):
            if len(data) - at < _JOB.size:
                raise ValueError("the id of a bookmark that is cut off")
            job, log_epoch = _JOB.unpack_from(data, at)
            offset, at = _read(data, at + _JOB.size)
            sequence, at = _read(data, at)
            logs[job] = LogPlace(log_epoch, offset, sequence)
        if (
            version >= _END
            or len(logs) > MAX_JOBS
            or str(cls(selection, epoch, version, looked, logs, form == _WHOLE)) != text
        ):
            raise ValueError("not the id of a bookmark")
        return cls(selection, epoch, version, looked, logs, form == _WHOLE)


def _written(number: int) -> bytes:
    """Write a number in groups of seven bits, the lowest first (LEB128)."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _read(data: bytes, at: int) -> tuple[int, int]:
    """Read a number, and return where the next one begins. Raises `ValueError`."""
    number = 0
    for shift in range(0, 63, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >= _END:
                break
            return number, at
    raise ValueError("the id of a bookmark that is cut off")
