"""Read pieces of a log of ten million lines, and the whole file, in one run.

    .venv/bin/python -m scripts.bench.logs [--lines 10000000]

The log is written by the coordinator's own writer, which takes half a minute
and a gigabyte of disk. One line in a thousand is a warning, one in a million
an error. Pieces are read as ListJobLogs does. The peers read the file from its
start: one parses the lines; the other only counts them, which is less than
any reader without an index has to do.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogReader, LogWriter
from app.coordinator.service.logs.pages import list_logs
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    LogEntry,
    LogFilter,
    LogLevel,
    LogPosition,
)
from scripts.bench.measuring import peak, timed

BATCH = 2000
ROUNDS = 7
#: Seconds in which a piece has to be read, and how much faster than parsing the whole file.
LIMIT = 0.1
TARGET = 100.0
#: Where in the log pages are read, and how much the slowest may take of the fastest.
ANYWHERE = {"at the start": 0.0, "at 1 %": 0.01, "in the middle": 0.5, "at 99 %": 0.99}
ANYWHERE_LIMIT = 2.0


def main() -> int:
    """Print milliseconds and ratios; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=10_000_000)
    count = parser.parse_args().lines
    with TemporaryDirectory() as folder:
        directory = JobDir(Path(folder))
        began = time.perf_counter()
        write(directory.log, count)
        spent = time.perf_counter() - began
        size = (directory.log / "entries").stat().st_size
        index = (directory.log / "entries.index").stat().st_size
        print(
            f"{count:,} lines, {size / 2**20:,.0f} MiB, written in {spent:.0f} s"
            f" ({spent / count * 1e6:.1f} us each); the index has {index / 2**10:,.0f} KiB"
        )
        epoch = logs.read_epoch(directory.log)
        pieces = {
            "tail of 100": ListJobLogsRequest(tail=100),
            **{
                f"1,000 lines {name}": ListJobLogsRequest(
                    after=LogPosition(epoch=epoch, offset=int(share * count))
                )
                for name, share in ANYWHERE.items()
            },
            **{
                f"1,000 lines before, {name}": ListJobLogsRequest(
                    before_offset=int(share * count) + 1001
                )
                for name, share in ANYWHERE.items()
            },
            "100 lines with a text": ListJobLogsRequest(
                before_offset=count, page_size=100, filter=LogFilter(contains="GRAD_NORM")
            ),
            "64 MiB without a text": ListJobLogsRequest(
                before_offset=count, filter=LogFilter(contains="not there")
            ),
            "tail of 100, WARNING": ListJobLogsRequest(
                tail=100, min_level=LogLevel.LOG_LEVEL_WARNING
            ),
            "tail of 10, ERROR": ListJobLogsRequest(tail=10, min_level=LogLevel.LOG_LEVEL_ERROR),
            "first page of ERROR": ListJobLogsRequest(
                after=LogPosition(epoch=epoch), min_level=LogLevel.LOG_LEVEL_ERROR
            ),
        }
        ours = {}
        for name, request in pieces.items():
            found = len(list_logs(directory, request, ended=True).entries)
            read = partial(list_logs, directory, request, ended=True)
            ours[name] = found, timed(read, rounds=ROUNDS)
        held = peak()
        counted = timed(lambda: count_lines(directory.log), rounds=1)
        parsed = timed(lambda: parse_lines(directory.log), rounds=1)
    print(f"\n{'':30}{'entries':>8}{'ms':>10}{'counting':>10}{'parsing':>10}")
    for name, (found, seconds) in ours.items():
        print(
            f"{name:30}{found:8,}{seconds * 1e3:10.2f}"
            f"{counted / seconds:9,.0f}x{parsed / seconds:9,.0f}x"
        )
    print(f"{'the whole file':30}{count:8,}{'':10}{counted:8.1f} s{parsed:8.1f} s")
    pages = [seconds for name, (_, seconds) in ours.items() if name.startswith("1,000 lines")]
    ratio = max(pages) / min(pages)
    print(f"\n1,000 lines anywhere: the slowest page takes {ratio:.2f} times the fastest")
    print(f"most memory held, writing and Python itself included: {held / 2**20:.0f} MiB")
    slowest = max(seconds for name, (_, seconds) in ours.items() if not name.startswith("64 MiB"))
    return int(slowest > LIMIT or parsed / slowest < TARGET or ratio > ANYWHERE_LIMIT)


def write(path: Path, count: int) -> None:
    """Write a log: lines of 80 characters, some of them warnings and errors."""
    logs.create(path)
    writer = LogWriter(path)
    for start in range(0, count, BATCH):
        writer.append(
            [
                LogEntry(
                    level=level_of(number),
                    message=f"step {number:9} loss 2.31{number % 1000:03} grad_norm 0.771 lr 1.9e-5"
                    " 48,211 tokens/s",
                    source="stdout",
                    node_id="local",
                )
                for number in range(start, min(start + BATCH, count))
            ]
        )
    writer.close()


def level_of(number: int) -> LogLevel.ValueType:
    """Tell the level of a line."""
    if number % 1_000_000 == 700_001:
        return LogLevel.LOG_LEVEL_ERROR
    if number % 1000 == 500:
        return LogLevel.LOG_LEVEL_WARNING
    return LogLevel.LOG_LEVEL_INFO


def count_lines(path: Path) -> int:
    """Count a byte of every line, in pieces of the file."""
    with open(path / "entries", "rb", buffering=0) as file:
        return sum(piece.count(b" tokens/s") for piece in iter(lambda: file.read(2**20), b""))


def parse_lines(path: Path) -> int:
    """Read every entry from the first to the last."""
    found = 0
    with LogReader(path) as log:
        cursor = Cursor()
        while (page := log.read(cursor, limit=2**20)).entries:
            found += len(page.entries)
            cursor = page.cursor
    return found


if __name__ == "__main__":
    sys.exit(main())
