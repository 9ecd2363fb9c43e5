"""What a worker does to unpack an archive, see `unpacking`.

It says one JSON object on stdout: `problem`, a phrase, which is empty if all
went well, and `errno`, which is 0 unless the disk failed.
"""

import sys

import orjson

from app.coordinator.data.archives.extraction import extract
from app.coordinator.data.archives.unpacked_tar import BadArchive
from app.files.directory import Directory
from app.files.walking import Limits


def work(archive: str, target: str, files: str, size_bytes: str) -> int:
    """Unpack an open archive into an open directory, at most so many files and bytes.

    `archive` and `target` are the numbers of their descriptors. Returns the
    status to exit with.
    """
    problem, number = "", 0
    try:
        with open(int(archive), "rb") as packed, Directory(int(target)) as directory:
            extract(
                packed, directory, limits=Limits(entries=int(files), size_bytes=int(size_bytes))
            )
    except BadArchive as error:
        problem = str(error)
    except OSError as error:
        problem, number = error.strerror or str(error), error.errno or 0
    answer = {"problem": problem.encode(errors="backslashreplace").decode(), "errno": number}
    sys.stdout.buffer.write(orjson.dumps(answer))
    sys.stdout.buffer.flush()
    return 1 if problem else 0
