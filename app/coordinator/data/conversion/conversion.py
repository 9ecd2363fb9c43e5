"""Bringing a job's artefacts into the format that it asks for, in a worker.

npz           every .safetensors file as .npz; the rest as it is
safetensors   every .npz file as .safetensors; the rest as it is
tar.gz        everything in one model.tar.gz
"""

import importlib.util
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import orjson

from app.coordinator.data.conversion.errors import CannotConvert
from app.coordinator.data.conversion.safetensors_conversion import CONVERTERS
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.workers.rules import Rules
from app.coordinator.workers.running import Outcome, run_worker
from app.files.copying import LeftOut, Report
from app.files.directory import Directory, Kind, NotARegularFile
from app.files.names import printable
from app.files.removing import remove_tree
from app.files.walking import Limits, walk

#: What the conversions between array formats need.
PACKAGES: Final = ("numpy",)
#: The module of a worker that converts.
WORKER: Final = "app.coordinator.data.conversion.work"
#: Bytes that a conversion may say.
_MAX_OUTPUT: Final = 1024 * 1024
#: A day: what packs half a terabyte takes hours.
_CPU_SECONDS: Final = 24 * 3600
_PASS: Final = stat.S_IROTH | stat.S_IXOTH


def missing_packages(export_format: str) -> list[str]:
    """The packages that a format needs and that are not installed."""
    needed = PACKAGES if export_format in CONVERTERS else ()
    return [name for name in needed if importlib.util.find_spec(name) is None]


class Converter:
    """Converts artefacts. Blocks: call it in a thread. Safe to use from several threads."""

    def __init__(self, *, readable: tuple[str, ...], memory_bytes: int, limits: Limits) -> None:
        """`readable` is what of the system every worker may read, `memory_bytes` what one may
        take; `limits` are those of one job's artefacts."""
        self._readable = readable
        self._memory_bytes = memory_bytes
        self._limits = limits

    @contextmanager
    def converted(
        self, export_format: str, source: Path, directory: JobDir, abandoned: threading.Event
    ) -> Iterator[tuple[Directory, Report]]:
        """The artefacts in `source` in a format, and what was left out of them.

        They are removed at the end of the block. Raises CannotConvert,
        Abandoned, OSError.
        """
        with Directory.open(directory.path) as job:
            remove_tree(job, directory.export.name)
            try:
                with (
                    Directory.open(source) as output,
                    job.make_directory(directory.export.name) as made,
                ):
                    if os.geteuid() == 0:
                        _open_to_worker(output, self._limits)
                    yield made, self._convert(export_format, output, made, abandoned)
            finally:
                remove_tree(job, directory.export.name)

    def _convert(
        self, export_format: str, output: Directory, made: Directory, abandoned: threading.Event
    ) -> Report:
        outcome = run_worker(
            WORKER,
            Rules(
                readable=(*self._readable, f"/proc/self/fd/{output.descriptor}"),
                writable=(f"/proc/self/fd/{made.descriptor}",),
                memory_bytes=self._memory_bytes,
                # An archive of small files can be larger than they are.
                file_bytes=2 * self._limits.size_bytes,
                cpu_seconds=_CPU_SECONDS,
            ),
            export_format,
            str(output.descriptor),
            str(made.descriptor),
            str(self._limits.entries),
            str(self._limits.size_bytes),
            descriptors=(output.descriptor, made.descriptor),
            most_output=_MAX_OUTPUT,
            abandoned=abandoned,
        )
        problem, report = _answer(outcome)
        if problem:
            raise CannotConvert(f"Its artefacts cannot be exported as {export_format}: {problem}.")
        return report


def _open_to_worker(output: Directory, limits: Limits) -> None:
    """Let every user read the artefacts; who may come near them is up to the directories above.

    A job of a coordinator that is root has a user of its own, and a worker has
    none of root's rights: it could not read what the script kept to itself.
    Raises LimitReached, ChangedMeanwhile, OSError.
    """
    _add_rights(output.descriptor, _PASS)
    for visit in walk(output, limits):
        if visit.entry.kind is Kind.DIRECTORY:
            _add_rights(visit.directory.descriptor, _PASS)
        elif visit.entry.kind is Kind.FILE:
            # Gone, or something else by now: then it is left out later, too.
            with (
                suppress(FileNotFoundError, NotARegularFile),
                visit.directory.open_file(visit.entry.name) as file,
            ):
                _add_rights(file.fileno(), stat.S_IROTH)


def _add_rights(file: int, rights: int) -> None:
    mode = stat.S_IMODE(os.fstat(file).st_mode)
    if mode & rights != rights:
        os.fchmod(file, mode | rights)


def _answer(outcome: Outcome) -> tuple[str, Report]:
    """What a worker said: the problem, empty if there is none, and what was left out.

    It has read what a script wrote, and may say anything.
    """
    try:
        answer = orjson.loads(outcome.output)
        report = Report(
            left_out_count=int(answer["left_out_count"]),
            left_out=[
                LeftOut(printable(path), printable(what)) for path, what in answer["left_out"]
            ],
        )
        problem = printable(answer["problem"])
    except (ValueError, LookupError, TypeError, AttributeError):
        last = outcome.last_words.strip().rpartition("\n")[2]
        return f"the conversion failed ({printable(last) or outcome.status})", Report()
    if outcome.status and not problem:
        problem = f"the conversion failed ({outcome.status})"
    return problem, report
