"""The steps that bring a job's directory from each format to the next.

A format covers the layout of the directory and the journals of the log and the
metrics in it. The file `format` has its number; a directory without one has
format 1. A change of any of them is a new step at the end, and a step that was
released is never changed. A directory takes its outstanding steps before its
next run is prepared, when nothing else uses it: until then, and for ever in a
job that has ended, whatever reads it must read its format.

A step can be broken off at any moment and is then taken again from its
beginning; after a power cut, so can all steps of a directory that was new.
"""

from collections.abc import Callable, Sequence
from typing import Final

import orjson

from app.coordinator.storage.job_directory import PROGRAM, JobDir
from app.coordinator.storage.locks import locked
from app.files.directory import Directory
from app.files.json_files import write_json

JobDirStep = Callable[[JobDir], None]


def _has_a_program(directory: JobDir) -> None:
    """The script lies where the job cannot write, from the preparation on that follows."""
    with Directory.open(directory.path) as own:
        own.make_directory(PROGRAM, exist_ok=True).close()


#: The step at place n makes format n + 2.
STEPS: Final[tuple[JobDirStep, ...]] = (_has_a_program,)


class NewerFormat(Exception):
    """The directory was written by a newer coordinator; the message is for people."""


def mark_new(directory: JobDir, steps: Sequence[JobDirStep] = STEPS) -> None:
    """Note that a directory which was just made has the newest format. Raises OSError."""
    # Not forced to the disk, for which the caller's event loop would wait: an empty marker counts
    # as none.
    directory.format.write_bytes(orjson.dumps({"format": len(steps) + 1}))


def bring_up(directory: JobDir, steps: Sequence[JobDirStep] = STEPS) -> None:
    """Take the outstanding steps. Blocks while the job's runner lives.

    Raises NewerFormat, and OSError or ValueError for a marker that cannot be read.
    """
    if _format_of(directory, steps) == len(steps) + 1:
        return
    with locked(directory.lock, wait=True):
        for number in range(_format_of(directory, steps), len(steps) + 1):
            steps[number - 1](directory)
            write_json(directory.format, {"format": number + 1})


def _format_of(directory: JobDir, steps: Sequence[JobDirStep]) -> int:
    known = len(steps) + 1
    try:
        content = directory.format.read_bytes()
    except FileNotFoundError:
        content = b""
    number = orjson.loads(content)["format"] if content else 1
    if not isinstance(number, int) or number < 1:
        raise ValueError("the format of the job's directory is no number")
    if number > known:
        raise NewerFormat(
            f"The job's directory has format {number}, and this coordinator can use up to format"
            f" {known}. Start the newer coordinator again, or submit the job again."
        )
    return number
