"""What a worker does to convert artefacts, see `exporting`.

It says one JSON object on stdout: `problem`, for people, which is empty if all
went well, and `left_out`, pairs of what has no place among artefacts and what
it is, with their `left_out_count`.
"""

import sys

import orjson

from app.coordinator.data.conversion.errors import CannotConvert
from app.coordinator.data.conversion.trees import convert_tree
from app.files.copying import Report
from app.files.directory import Directory
from app.files.walking import Limits


def work(export_format: str, source: str, target: str, files: str, size_bytes: str) -> int:
    """Convert the files in one open directory into another, for at most so many files and bytes.

    `source` and `target` are the numbers of their descriptors: whatever becomes
    of their paths, nothing else is read. Returns the status to exit with.
    """
    problem = ""
    report = Report()
    try:
        with Directory(int(source)) as artefacts, Directory(int(target)) as made:
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
    sys.stdout.buffer.flush()
    return 1 if problem else 0
