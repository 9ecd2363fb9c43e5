"""Bringing a job's artefacts into the format that it asks for, in a process of its own.

    npz           every .safetensors file as .npz; the rest as it is
    safetensors   every .npz file as .safetensors; the rest as it is
    tar.gz        everything in one model.tar.gz

`python -m app.coordinator.exporting <format> <from> <to> <files> <bytes>` does
it, for at most so many files and bytes. It says one JSON object on stdout:
`problem`, for people, which is empty if all went well, and `left_out`, pairs of
what has no place among artefacts and what it is, with their `left_out_count`.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import orjson

from app.files.copying import Abandoned, LeftOut, Report
from app.files.directory import Directory
from app.files.walking import Limits

from .conversion.arrays import CONVERTERS
from .conversion.errors import CannotConvert
from .conversion.trees import convert_tree

#: Seconds between two looks at whether anybody wants the result.
_LOOK: Final = 0.1
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]
#: What the conversions between array formats need.
PACKAGES: Final = ("numpy",)


def missing_packages(export_format: str) -> list[str]:
    """The packages that a format needs and that are not installed."""
    needed = PACKAGES if export_format in CONVERTERS else ()
    return [name for name in needed if importlib.util.find_spec(name) is None]


def convert(
    export_format: str, source: Path, target: Path, *, limits: Limits, abandoned: threading.Event
) -> Report:
    """Make `target`, a directory, of the artefacts in `source`; returns what was left out.

    Blocks. Raises CannotConvert, Abandoned, OSError.
    """
    shutil.rmtree(target, ignore_errors=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", __name__, export_format, str(source), str(target)),
            *(str(limits.entries), str(limits.size_bytes)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Nothing of this process's environment: the API secret is in it.
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(_PACKAGE_ROOT),
        },
        cwd="/",
    )
    with process:
        while True:
            try:
                said, complaint = process.communicate(timeout=_LOOK)
            except subprocess.TimeoutExpired:
                if abandoned.is_set():
                    process.kill()
                    raise Abandoned from None
            else:
                break
    try:
        answer = orjson.loads(said)
        problem = str(answer["problem"])
        report = Report(
            left_out=[LeftOut(path, what) for path, what in answer["left_out"]],
            left_out_count=int(answer["left_out_count"]),
        )
    except (ValueError, LookupError, TypeError):
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        problem = f"the conversion broke off ({last or process.returncode})"
    if problem:
        raise CannotConvert(f"Its artefacts cannot be exported as {export_format}: {problem}.")
    return report


def work(export_format: str, source: str, target: str, files: str, size_bytes: str) -> int:
    """Convert, as the module says; returns the status to exit with."""
    problem = ""
    report = Report()
    try:
        os.mkdir(target)
        with Directory.open(source) as artefacts, Directory.open(target) as made:
            report = convert_tree(
                export_format,
                artefacts,
                made,
                limits=Limits(entries=int(files), size_bytes=int(size_bytes)),
            )
    except CannotConvert as error:
        problem = str(error)
    except OSError as error:
        problem = error.strerror or str(error)
    answer = {
        "problem": problem.encode(errors="backslashreplace").decode(),
        "left_out": [(each.path, each.what) for each in report.left_out],
        "left_out_count": report.left_out_count,
    }
    sys.stdout.buffer.write(orjson.dumps(answer))
    return 1 if problem else 0


if __name__ == "__main__":
    os.nice(10)
    sys.exit(work(*sys.argv[1:]))
