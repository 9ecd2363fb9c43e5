"""Data sources, really parsed: are they there, and is every record good?"""

import bz2
import csv
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson

from .drive import BadUrl, Drive

#: The longest record and the largest JSON document that are read, in bytes.
MAX_RECORD: Final = 64 * 1024 * 1024
MAX_DOCUMENT: Final = 256 * 1024 * 1024

_UNPACKERS: Final[dict[str, Callable[[Path], Any]]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
_BY_NAME: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}


class BadData(Exception):
    """What is wrong with a source, and where."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about a source."""

    accessible: bool
    size_bytes: int = 0
    record_count: int = 0
    format: str = ""
    #: Empty if the source is good.
    error_message: str = ""


def examine(
    drive: Drive, *, tenant_id: str, url: str, format_name: str, columns: tuple[str, ...]
) -> Finding:
    """Parse all of a source, in memory bounded by its longest record. Blocks."""
    try:
        path = drive.find(tenant_id, url)
    except BadUrl as error:
        return Finding(accessible=False, format=format_name, error_message=str(error))
    if not path.is_file():
        return Finding(accessible=False, format=format_name, error_message=f"{url} is not a file")
    size = path.stat().st_size
    found = format_name or format_of(path)
    count = 0
    try:
        if not found:
            raise BadData(f"its format cannot be told from its name; give one of {_known()}")
        if found not in _READERS:
            raise BadData(f"format {found[:32]!r} is not one of {_known()}")
        for record in _READERS[found](path):
            count += 1
            if missing := [name for name in columns if name not in record]:
                raise BadData(f"record {count} has no {missing[0]!r}")
        if not count:
            raise BadData("it has no records")
    except BadData as error:
        problem = str(error)
    except PermissionError:
        return Finding(
            accessible=False, size_bytes=size, format=found, error_message=f"{url} is not readable"
        )
    except (OSError, EOFError, lzma.LZMAError) as error:
        problem = f"it cannot be unpacked behind record {count}: {_reason(error)}"
    else:
        problem = ""
    return Finding(
        accessible=True,
        size_bytes=size,
        record_count=count,
        format=found,
        error_message=problem,
    )


def format_of(path: Path) -> str:
    """The format that a name tells, compression aside; empty if it tells none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _UNPACKERS:
        suffixes.pop()
    return _BY_NAME.get(suffixes[-1], "") if suffixes else ""


def _known() -> str:
    return ", ".join(_READERS)


def _reason(error: Exception) -> str:
    """An error's own words, without a path of this machine."""
    return getattr(error, "strerror", None) or str(error)


def _open(path: Path) -> IO[bytes]:
    unpacker = _UNPACKERS.get(path.suffix.lower())
    if unpacker is None:
        return path.open("rb")
    unpacked: IO[bytes] = unpacker(path)
    return unpacked


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_RECORD):
        number += 1
        if len(line) == MAX_RECORD and not line.endswith(b"\n"):
            raise BadData(f"line {number} is longer than {MAX_RECORD} bytes")
        yield number, line


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with closing(_open(path)) as file:
        for number, line in _lines(file):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise BadData(f"line {number}: {_json_problem(line, error)}") from None
            if not isinstance(record, dict):
                raise BadData(f"line {number}: it is not a JSON object")
            yield record


def _json(path: Path) -> Iterator[dict[str, Any]]:
    with closing(_open(path)) as file:
        document = file.read(MAX_DOCUMENT + 1)
    if len(document) > MAX_DOCUMENT:
        raise BadData(f"it is larger than {MAX_DOCUMENT} bytes; use jsonl for data of that size")
    try:
        records = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        line = document.count(b"\n", 0, error.pos) + 1
        raise BadData(f"line {line}: {_json_problem(document, error)}") from None
    if not isinstance(records, list):
        raise BadData("it is not a JSON array of objects")
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise BadData(f"record {number}: it is not a JSON object")
        yield record


def _json_problem(text: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as problem:
        return f"byte {problem.start + 1} is not UTF-8"
    return f"it is not JSON ({error.msg}, column {error.colno})"


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(MAX_RECORD)
    with (
        closing(_open(path)) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
    ):
        reader = csv.reader(text, strict=True)
        try:
            names = next(reader, [])
            if len(set(names)) < len(names):
                raise BadData("line 1: two columns have the same name")
            for row in reader:
                if len(row) != len(names) and row:
                    raise BadData(
                        f"line {reader.line_num}: it has {len(row)} fields, not {len(names)}"
                    )
                if row:
                    yield dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise BadData(f"line {reader.line_num}: it is not CSV ({error})") from None
        except UnicodeDecodeError:
            raise BadData(f"behind line {reader.line_num}: it is not UTF-8") from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    raise BadData("this coordinator cannot read Parquet; convert it to jsonl")


_READERS: Final[dict[str, Callable[[Path], Iterator[dict[str, Any]]]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
}
