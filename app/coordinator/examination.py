"""Data checks in processes of their own, a few at a time."""

import asyncio
import importlib.util
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
import structlog

from .access import Access
from .drive import Drive
from .formats import NEEDS_PYARROW, format_of, needs_pyarrow
from .refusals import FailedPrecondition, Overloaded
from .validation import Finding

#: Checks that may wait for each that runs.
_WAITING: Final = 16
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]

_log = structlog.get_logger("scaimind.coordinator")


@dataclass(frozen=True, slots=True)
class Question:
    """A source to check."""

    url: str
    #: Empty if its name tells it.
    format_name: str
    #: That every record must have.
    columns: tuple[str, ...]


class Examination:
    """Runs data checks; at most `workers` processes with at most `memory_bytes` each."""

    def __init__(self, drive: Drive, *, workers: int, memory_bytes: int) -> None:
        self._drive = drive
        self._memory_bytes = memory_bytes
        self._room = workers * (1 + _WAITING)
        self._turn = asyncio.Semaphore(workers)

    async def examine(self, access: Access, questions: Sequence[Question]) -> list[Finding]:
        """What is found, in the order of the questions.

        A cancelled check ends its process. Raises FailedPrecondition if a
        package is missing, Overloaded if too many checks wait.
        """
        for question in questions:
            if needs_pyarrow(question.url, question.format_name) and not _has_pyarrow():
                known = question.format_name or format_of(question.url)
                what = "Parquet" if known == "parquet" else "Zstandard"
                raise FailedPrecondition(NEEDS_PYARROW.format(what))
        if not self._room:
            raise Overloaded("too many data checks are waiting; try again in a moment")
        self._room -= 1
        try:
            async with self._turn:
                return await self._ask(access, questions)
        finally:
            self._room += 1

    async def _ask(self, access: Access, questions: Sequence[Question]) -> list[Finding]:
        asked = {
            "tenant_id": access.tenant_id,
            "drive": str(self._drive.root),
            "atlas": str(self._drive.atlas or ""),
            "allowed": [str(path) for path in self._drive.allowed],
            "memory_bytes": self._memory_bytes,
            "parent": os.getpid(),
            "sources": questions,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.coordinator.examiner",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Nothing of this process's environment: the API secret is in it.
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(_PACKAGE_ROOT),
                # One that gives memory back, and reserves none.
                "ARROW_DEFAULT_MEMORY_POOL": "system",
                "OMP_NUM_THREADS": "1",
            },
            cwd="/",
        )
        try:
            answer, complaint = await process.communicate(orjson.dumps(asked))
        finally:
            # Left by a cancellation: nobody waits for the answer any more.
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            _log.error(
                "data_check_died",
                tenant_id=access.tenant_id,
                status=process.returncode,
                stderr=complaint[-2000:].decode(errors="replace"),
            )
            return [
                Finding(False, error_message="the check of this source did not come to an end")
                for _ in questions
            ]
        return [Finding(**finding) for finding in orjson.loads(answer)]


def _has_pyarrow() -> bool:
    return importlib.util.find_spec("pyarrow") is not None
