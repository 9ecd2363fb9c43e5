"""Unpacking an archive in a worker: whatever is in it, it reaches one directory and no other."""

import os
import threading
from typing import BinaryIO, Final

import orjson

from app.coordinator.data.archives.unpacked_tar import BadArchive
from app.coordinator.workers.rules import Rules
from app.coordinator.workers.running import Outcome, run_worker
from app.files.directory import Directory
from app.files.names import printable
from app.files.walking import Limits

#: The module of a worker that unpacks.
WORKER: Final = "app.coordinator.data.archives.work"
_MEMORY: Final = 512 * 1024**2
#: Far more than the largest archive takes; one that is made to take for ever ends here.
_CPU_SECONDS: Final = 1800
_MAX_OUTPUT: Final = 64 * 1024


class Unpacker:
    """Unpacks archives. Blocks: call it in a thread. Safe to use from several threads."""

    def __init__(self, *, readable: tuple[str, ...], limits: Limits) -> None:
        """`readable` is what of the system every worker may read; `limits` are those of one
        archive."""
        self._readable = readable
        self._limits = limits

    def unpack(self, archive: BinaryIO, target: Directory, abandoned: threading.Event) -> None:
        """Unpack a `.tar.gz` into an empty directory.

        What an archive that is refused has left there is the caller's to
        remove. Raises BadArchive, Abandoned, OSError.
        """
        limits = self._limits
        if os.fstat(archive.fileno()).st_size > limits.size_bytes:
            raise BadArchive(f"it has more than {limits.size_bytes} bytes")
        outcome = run_worker(
            WORKER,
            Rules(
                readable=self._readable,
                writable=(f"/proc/self/fd/{target.descriptor}",),
                memory_bytes=_MEMORY,
                file_bytes=limits.size_bytes,
                cpu_seconds=_CPU_SECONDS,
            ),
            str(archive.fileno()),
            str(target.descriptor),
            str(limits.entries),
            str(limits.size_bytes),
            descriptors=(archive.fileno(), target.descriptor),
            most_output=_MAX_OUTPUT,
            abandoned=abandoned,
        )
        _check(outcome)


def _check(outcome: Outcome) -> None:
    """Raise BadArchive or OSError unless the worker has done it.

    It has read what a caller wrote, and may say anything.
    """
    try:
        answer = orjson.loads(outcome.output)
        problem, number = printable(answer["problem"]), int(answer["errno"])
    except (ValueError, LookupError, TypeError, AttributeError):
        last = outcome.last_words.strip().rpartition("\n")[2]
        raise BadArchive(f"it cannot be unpacked ({printable(last) or outcome.status})") from None
    if number:
        raise OSError(number, problem)
    if problem or outcome.status:
        raise BadArchive(problem or f"it cannot be unpacked ({outcome.status})")
