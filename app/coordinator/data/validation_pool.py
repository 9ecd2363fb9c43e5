"""Data checks in processes of their own, a few at a time."""

import asyncio
import importlib.util
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import structlog

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.data.drive import Drive
from app.coordinator.data.fetched_sources import fetched
from app.coordinator.data.readers import format_of, needs_pyarrow
from app.coordinator.data.turns import Full, Turns
from app.coordinator.data.unpacking import NEEDS_PYARROW
from app.coordinator.data.validation import Finding
from app.coordinator.errors import FailedPrecondition, Overloaded
from app.coordinator.identity.access import Access
from app.coordinator.workers.process import WorkerProcess
from app.coordinator.workers.rules import Rules
from app.shortening import shortened

#: The module of a worker that checks data.
WORKER: Final = "app.coordinator.data.validation_worker"
#: Checks that may wait for each that runs.
_WAITING: Final = 16
#: Seconds that a source's check takes at most, however long the caller would wait.
_LONGEST: Final = 3600.0
#: Seconds that are kept for the answer's way back.
_WAY_BACK: Final = 1.0
#: Bytes of one finding.
_MAX_FINDING: Final = 64 * 1024

log = structlog.get_logger("scaimind.coordinator")


@dataclass(frozen=True, slots=True)
class Question:
    """A source to check."""

    url: str
    #: Empty if its name tells it.
    format_name: str
    #: That every record must have.
    columns: tuple[str, ...]
    #: How many records to show.
    preview: int = 0


class ValidationPool:
    """Runs data checks; at most `workers` processes with at most `memory_bytes` each.

    Tenants have their turns one after the other, and none has all processes (`Turns`).
    """

    def __init__(
        self,
        drive: Drive,
        *,
        workers: int,
        memory_bytes: int,
        readable: tuple[str, ...],
        limit_bytes: int = 1 << 62,
    ) -> None:
        """`readable` is what of the system every worker may read. Of a drive that is no folder,
        sources of one call with at most `limit_bytes` are fetched to be checked."""
        self._drive = drive
        self._limit_bytes = limit_bytes
        self._memory_bytes = memory_bytes
        self._readable = readable
        self._turns = Turns(places=workers, room=workers * (1 + _WAITING))

    async def check(
        self, access: Access, questions: Sequence[Question], *, within: float | None = None
    ) -> list[Finding]:
        """Return what is found, in the order of the questions.

        `within` is for how many seconds the caller waits for the answer; no
        source takes so much of it that the others are not checked. A cancelled
        check ends its process. Raises FailedPrecondition if a package is
        missing, Overloaded if too many checks wait.
        """
        ends = None if within is None else time.monotonic() + within - _WAY_BACK
        for at, question in enumerate(questions):
            if needs_pyarrow(question.url, question.format_name) and not _has_pyarrow():
                known = question.format_name or format_of(question.url)
                what = "Parquet" if known == "parquet" else "Zstandard"
                raise FailedPrecondition(f"data_sources.{at}.format: {NEEDS_PYARROW.format(what)}")
        try:
            async with self._turns.turn(access.tenant_id):
                if not isinstance(self._drive, BucketDrive):
                    return await self._check(self._drive, access, questions, ends)
                urls = [question.url for question in questions]
                async with fetched(self._drive, access, urls, limit=self._limit_bytes) as local:
                    return await self._check(local, access, questions, ends)
        except Full:
            raise Overloaded("too many data checks are waiting; try again in a moment") from None

    async def _check(
        self, drive: Drive, access: Access, questions: Sequence[Question], ends: float | None
    ) -> list[Finding]:
        findings: dict[int, Finding] = {}
        waiting = deque(range(len(questions)))
        #: Those that took more than their part of the time; they may have what is left at the end.
        slow: set[int] = set()
        while waiting:
            asked = self._asked(drive, access, [questions[at] for at in waiting])
            async with WorkerProcess(
                WORKER,
                self._rules(drive, access),
                asked=asked,
                name="data check",
                limit=_MAX_FINDING,
            ) as worker:
                examiner = _Examiner(worker, access.tenant_id)
                while waiting:
                    at = waiting.popleft()
                    seconds = _part(ends, left=1 + len(waiting), alone=len(questions) == 1)
                    try:
                        finding = await examiner.finding(seconds)
                    except TimeoutError:
                        if waiting and at not in slow:
                            waiting.append(at)
                        else:
                            findings[at] = _bad(questions[at], _TOO_SLOW.format(seconds))
                        slow.add(at)
                        break
                    if finding is not None:
                        findings[at] = finding
                        continue
                    how = await examiner.end()
                    if how:
                        findings[at] = _bad(questions[at], _DIED.format(how))
                    else:
                        waiting.appendleft(at)
                    break
        return [findings[at] for at in range(len(questions))]

    def _asked(self, drive: Drive, access: Access, questions: Sequence[Question]) -> bytes:
        return orjson.dumps(
            {
                "tenant_id": access.tenant_id,
                "drive": str(drive.root),
                "atlas": str(drive.atlas or ""),
                "allowed": [str(path) for path in drive.allowed],
                "sources": questions,
            }
        )

    def _rules(self, drive: Drive, access: Access) -> Rules:
        return Rules(
            readable=(*self._readable, *map(str, drive.folders(access.tenant_id))),
            memory_bytes=self._memory_bytes,
        )


class _Examiner:
    """Reads the findings of a data check's process."""

    def __init__(self, worker: WorkerProcess, tenant_id: str) -> None:
        self._worker = worker
        self._tenant_id = tenant_id
        self._answered = False

    async def finding(self, within: float) -> Finding | None:
        """Return the finding about the next source; None if the process ends without it.

        Raises TimeoutError.
        """
        async with asyncio.timeout(within):
            try:
                line = await self._worker.output.readline()
                finding = _finding(line)
            except (ValueError, TypeError):
                # Nothing, a part of a line, or too much: a parser has run wild.
                return None
        self._answered = True
        return finding

    async def end(self) -> str:
        """Return how the process ended; empty if it just wants another to go on for it."""
        status = await self._worker.ended()
        if status == 0 and self._answered:
            return ""
        log.error(
            "data_check_died",
            tenant_id=self._tenant_id,
            status=status,
            stderr=self._worker.last_words,
        )
        if status < 0:
            return f"by signal {-status} ({signal.strsignal(-status)})"
        return f"with status {status}"


#: What is told of a source whose check ends badly.
_DIED: Final = (
    "its check ended {} before it was complete: the file is damaged or malicious;"
    " write it again, and check a directory file by file"
)
_TOO_SLOW: Final = (
    "its check did not finish within {:.1f} seconds, its share of the call; check it alone, or"
    " split it into smaller sources"
)


def _finding(line: bytes) -> Finding:
    """Read a finding as the worker says it. Raises ValueError, TypeError."""
    finding = Finding(**orjson.loads(line))
    if not all(isinstance(record, str) for record in finding.preview):
        raise TypeError("a preview has records as text")
    return finding


def _part(ends: float | None, *, left: int, alone: bool) -> float:
    """Seconds that the next of `left` sources may take."""
    if ends is None or alone:
        # The caller's own deadline ends the whole check.
        return _LONGEST
    return min(max((ends - time.monotonic()) / left, 0.1), _LONGEST)


def _bad(question: Question, problem: str) -> Finding:
    return Finding(
        accessible=True, format=shortened(question.format_name, 32), error_message=problem
    )


def _has_pyarrow() -> bool:
    return importlib.util.find_spec("pyarrow") is not None
