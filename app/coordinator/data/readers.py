"""Reading data files record by record: JSONL, JSON, CSV and Parquet, packed or not.

Each reader adds the good records to a tally as it goes, shows it the first ones,
and raises BadData that names the first bad one. Memory is bounded by the longest
record.
"""

import csv
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import IO, Any, Final

import orjson

from app.coordinator.data.json_array import Elements
from app.coordinator.data.preview import Preview
from app.coordinator.data.text import BLOCK, MAX_RECORD, BadData, as_text, begin, shown_name
from app.coordinator.data.unpacking import (
    MAX_RATIO,
    NEEDS_PYARROW,
    PACKED,
    CannotUnpack,
    NoReader,
    Unpacked,
    unpacked_limit,
)
from app.shortening import shortened

_PARQUET_ROWS: Final = 4096

_BY_NAME: Final = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "csv": "csv",
    "parquet": "parquet",
}


@dataclass(slots=True)
class Tally:
    """The good records so far."""

    records: int = 0
    preview: Preview = field(default_factory=Preview)


def packing_of(name: str) -> str:
    """The suffix that tells how a file is packed; empty if it is not."""
    return next((suffix for suffix in PACKED if name.lower().endswith(suffix)), "")


def format_of(name: str) -> str:
    """The format that a file's name tells, packing aside; empty if it tells none."""
    stem = name.lower().removesuffix(packing_of(name))
    return _BY_NAME.get(stem.rpartition(".")[2], "") if "." in stem else ""


def needs_pyarrow(name: str, format_name: str) -> bool:
    """Whether a file cannot be read without pyarrow."""
    return (format_name or format_of(name)) == "parquet" or packing_of(name) == ".zst"


def read(
    file: IO[bytes], *, name: str, format_name: str, columns: Sequence[str], tally: Tally
) -> None:
    """Read all of a file that has this name and this format.

    Raises BadData, NoReader, and OSError if it cannot be read any further.
    """
    packing = packing_of(name)
    if format_name == "parquet":
        if packing:
            raise BadData("a Parquet file is packed inside; unpack it and name the .parquet file")
        _parquet(file, columns, tally)
        return
    try:
        unpacked: Any = Unpacked(file, packing) if packing else file
        READERS[format_name](unpacked, columns, tally)
    except CannotUnpack as error:
        raise BadData(f"after record {tally.records}: {error}") from None


def _check_columns(columns: Sequence[str], there: Mapping[str, Any], number: int) -> None:
    for column in columns:
        if column not in there:
            raise BadData(f"record {number} has no {shown_name(column)}")


# JSON Lines


def _jsonl(file: IO[bytes], columns: Sequence[str], tally: Tally) -> None:
    number = 0
    loads = orjson.loads
    shown = tally.preview.room
    for lines in _lines(file):
        for line in lines:
            number += 1
            try:
                record = loads(line)
            except orjson.JSONDecodeError as error:
                if not line.strip():
                    continue
                raise BadData(f"line {number}: {_json_problem(line, error)}") from None
            if type(record) is not dict:
                raise BadData(f"line {number}: it is not a JSON object")
            if columns:
                _check_columns(columns, record, tally.records + 1)
            tally.records += 1
            if shown:
                shown -= 1
                tally.preview.add_text(line)


def _lines(file: IO[bytes]) -> Iterator[list[bytes]]:
    """The lines of a file, many at a time, without their line feeds."""
    # A line that goes on over many blocks is joined once, at its end.
    pieces: list[bytes] = []
    length = count = 0
    for block in chain([begin(file)], iter(partial(file.read, BLOCK), b"")):
        first, *lines = block.split(b"\n")
        pieces.append(first)
        length += len(first)
        if length > MAX_RECORD:
            raise BadData(f"line {count + 1} is longer than {MAX_RECORD} bytes")
        if lines:
            rest = lines.pop()
            lines.insert(0, b"".join(pieces))
            count += len(lines)
            yield lines
            pieces, length = [rest], len(rest)
    if length:
        yield [b"".join(pieces)]


def _json_problem(text: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as problem:
        return f"byte {problem.start + 1} is not UTF-8"
    return f"it is not JSON ({error.msg}, column {error.colno})"


# JSON


def _json(file: IO[bytes], columns: Sequence[str], tally: Tally) -> None:
    for record in Elements(file).each():
        number = tally.records + 1
        if type(record) is not dict:
            raise BadData(f"record {number}: it is not a JSON object")
        _check_columns(columns, record, number)
        tally.records = number
        if tally.preview.room:
            tally.preview.add(record)


# CSV


def _csv(file: IO[bytes], columns: Sequence[str], tally: Tally) -> None:
    csv.field_size_limit(MAX_RECORD)
    lines = _CsvLines(file)
    reader = csv.reader(lines, strict=True)
    # The first line of the record at hand: a quote that is never closed goes on to the end.
    line = 1
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise BadData("line 1: two columns have the same name")
        width = len(names)
        if names:
            _check_columns(columns, dict.fromkeys(names), 1)
        shown = tally.preview.room
        for text in lines:
            line = lines.number
            if '"' not in text and not shown:
                # Counting is several times as fast as csv.reader, and the same without quotes.
                fields = text.count(",") + 1 if text.strip("\r\n") else 0
            else:
                lines.again = text
                values = next(reader)
                fields = len(values)
            if fields == width:
                tally.records += 1
                if shown:
                    shown -= 1
                    tally.preview.add(dict(zip(names, values, strict=True)))
            elif fields:
                raise BadData(f"line {line}: it has {fields} fields, not {width}")
    except csv.Error as error:
        raise BadData(f"line {line}: it is not CSV ({error})") from None
    except UnicodeDecodeError:
        raise BadData(f"after line {lines.number}: it is not UTF-8") from None


class _CsvLines:
    """The lines of a file. One that is put into `again` comes once more."""

    def __init__(self, file: IO[bytes]) -> None:
        self._readline = as_text(file).readline
        #: Of the newest line.
        self.number = 0
        self.again = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if line := self.again:
            self.again = ""
            return line
        line = self._readline(MAX_RECORD)
        if not line:
            raise StopIteration
        self.number += 1
        if "\0" in line:
            raise BadData(f"line {self.number}: it has a NUL character; write it again as UTF-8")
        if len(line) == MAX_RECORD:
            raise BadData(f"line {self.number} is longer than {MAX_RECORD} characters")
        return line


# Parquet


def _parquet(file: IO[bytes], columns: Sequence[str], tally: Tally) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise NoReader(NEEDS_PYARROW.format("Parquet")) from None
    try:
        limit = unpacked_limit(file)
        unpacked = 0
        source = parquet.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK)
        _check_columns(columns, dict.fromkeys(source.schema_arrow.names), 1)
        for batch in source.iter_batches(batch_size=_PARQUET_ROWS, use_threads=False):
            unpacked += batch.nbytes
            if unpacked > limit:
                raise BadData(
                    f"after record {tally.records}: it unpacks to more than {limit} bytes and"
                    f" {MAX_RATIO} times its size; check that its values are meant"
                )
            tally.records += batch.num_rows
            if tally.preview.room:
                _show_rows(batch, tally.preview)
    except pyarrow.ArrowMemoryError:
        # An ArrowException, too.
        raise
    except OSError as error:
        # Parquet's own have no number, or are about a place that is not in the file; any other
        # comes from the disk.
        if error.errno not in (None, errno.EINVAL):
            raise
        problem = str(error)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        # ValueError: names and texts that are not UTF-8.
        problem = str(error)
    else:
        return
    said = shortened(" ".join(problem.split()), 300)
    raise BadData(f"after record {tally.records}: it is not Parquet ({said})")


def _show_rows(batch: Any, preview: Preview) -> None:
    for number in range(min(preview.room, batch.num_rows)):
        try:
            [row] = batch.slice(number, 1).to_pylist()
        except MemoryError:
            raise
        except Exception:  # of a value that Python cannot hold, which is good all the same
            row = {}
        preview.add(row)


READERS: Final[Mapping[str, Callable[[IO[bytes], Sequence[str], Tally], None]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
}
