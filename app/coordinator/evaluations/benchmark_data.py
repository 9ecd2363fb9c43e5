"""Which data sets benchmarks can read, told when an evaluation is submitted."""

from typing import Final

from app.coordinator.data.drive import BadUrl, Drive
from app.coordinator.data.readers import format_of, packing_of
from app.coordinator.errors import FailedPrecondition, InvalidArgument
from app.coordinator.evaluations.evaluator.harness_task import is_task_file
from app.coordinator.identity.access import Access
from app.files.directory import LimitReached

#: Bytes of a data set that are looked at when an evaluation is submitted.
_START: Final = 1024
#: Entries of a task's folder, which is listed while the submission waits.
_MOST_FILES: Final = 1000
#: How files begin that are not JSON Lines in UTF-8.
_OTHERS: Final = {
    b"\x1f\x8b": "packed with gzip",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ\x00": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with Zstandard",
    b"PK\x03\x04": "a ZIP archive",
    b"PAR1": "Parquet",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_READS_JSONL: Final = "benchmarks read JSON Lines in UTF-8, one object a line: convert it"


def check_dataset(drive: Drive, access: Access, where: str, url: str) -> None:
    """Refuse a data set that benchmarks cannot read, by its name and its first bytes.

    Raises InvalidArgument for its name, FailedPrecondition for what is there.
    """
    if packing := packing_of(url):
        raise InvalidArgument(where, f"it is packed ({packing}); {_READS_JSONL}")
    if format_of(url) not in ("", "jsonl", "json"):
        raise InvalidArgument(where, f"it is {format_of(url)}; {_READS_JSONL}")
    drive.require(access, where, url, kind="file")
    try:
        with drive.filesystem(access).open(url) as file:
            start: bytes = file.read(_START)
    except (BadUrl, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FailedPrecondition(f"{where}: it cannot be read: {reason}") from None
    for mark, what in _OTHERS.items():
        if start.startswith(mark):
            raise FailedPrecondition(f"{where}: it is {what}; {_READS_JSONL}")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        raise FailedPrecondition(f"{where}: it is one JSON array; {_READS_JSONL}")


def check_task(drive: Drive, access: Access, where: str, url: str) -> None:
    """Refuse a folder that does not hold one task of lm-evaluation-harness.

    Raises InvalidArgument for its URL, FailedPrecondition for what is there.
    """
    drive.require(access, where, url, kind="directory")
    try:
        entries = drive.filesystem(access).ls(url, detail=False, limit=_MOST_FILES)
    except LimitReached:
        raise FailedPrecondition(
            f"{where}: the folder has more than {_MOST_FILES} entries: give one that holds the task"
            " alone"
        ) from None
    except (BadUrl, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FailedPrecondition(f"{where}: it cannot be read: {reason}") from None
    found = sum(map(is_task_file, (entry.rpartition("/")[2] for entry in entries)))
    if found != 1:
        raise FailedPrecondition(
            f"{where}: the folder has {found or 'no'} files *.yaml; it must have one, a task of"
            " lm-evaluation-harness. The names of those that it includes begin with _"
        )
