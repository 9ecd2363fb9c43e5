"""Whatever a script writes is taken in, or left out: nothing is raised, and all can be told."""

import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.coordinator.jobs.model import MAX_COUNT, Progress
from app.coordinator.logs import log as logs
from app.coordinator.logs.lines import LineSplitter, parse_line
from app.coordinator.logs.log import LogReader, LogWriter
from app.coordinator.metrics.metrics_file import MetricsFile
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter, progress_of
from app.files.copying import copy_tree
from app.files.directory import Directory, LimitReached
from app.files.names import printable
from app.files.removing import remove_tree
from app.files.walking import Limits, tree_size
from generated.mindcoordinator.v1.jobs_pb2 import JobProgress
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel, WatchJobResponse
from tests.hostile.strategies import PLANT, metrics_lines, names, outputs, trees
from tests.leftovers import memory_folder

#: Each kind is tried so often; a failure prints how to repeat it.
often = settings(
    settings.get_profile("often"), print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)


@often
@given(lines=st.lists(metrics_lines, max_size=6), pieces=st.integers(1, 50))
@example(lines=[b'{"step": 1, "total_steps": NaN}'], pieces=1)
@example(lines=[b'{"step": 1' + b"0" * 400 + b"}"], pieces=1)
@example(lines=[b'{"step": 1, "x": ' + b"[" * 2000 + b"]" * 2000 + b"}"], pieces=7)
@example(lines=[b'{"step": 9223372036854775807, "total_steps": 9223372036854775807}'], pieces=1)
def test_any_metrics_lines(lines: list[bytes], pieces: int) -> None:
    with memory_folder() as path:
        file = MetricsFile(path / "metrics.jsonl")
        writer = MetricsWriter(path / "metrics")
        content = b"".join(line + b"\n" for line in lines)
        size = len(content) // pieces + 1
        taken = 0
        for at in range(0, len(content), size):
            with open(path / "metrics.jsonl", "ab") as growing:
                growing.write(content[at : at + size])
            for batch in file.batches(last=at + size >= len(content)):
                writer.append(batch)
                taken += len(batch)
        writer.close()
        problems = file.take_problems()
        assert len(problems) == len(set(problems))
        assert taken <= len(lines)
        with MetricsReader(path / "metrics") as reader:
            assert reader.last() == taken
            newest = reader.newest()
        if newest is None:
            return
        progress = progress_of(newest, Progress())
        assert abs(progress.step) <= MAX_COUNT
        assert 0 <= progress.total_steps <= MAX_COUNT
        assert math.isfinite(progress.epoch)
        stored = Progress(**orjson.loads(orjson.dumps(progress)))
        assert (stored.step, stored.total_steps) == (progress.step, progress.total_steps)
        JobProgress(step=progress.step, total_steps=progress.total_steps).SerializeToString()
        assert WatchJobResponse(metrics=[newest]).ByteSize() < 1024 * 1024


@often
@given(pieces=st.lists(outputs, max_size=8))
@example(pieces=[b'{"level": "info", "message": "", "f": ' + b"[" * 255 + b"]" * 255 + b"}\n"])
@example(pieces=[b'{"level": "info", "message": "\\ud800", "rank": 1e400}\n'])
def test_any_output(pieces: list[bytes]) -> None:
    splitter = LineSplitter(clock=lambda: 0.0)
    raw = [line for piece in pieces for line in splitter.feed(piece)]
    raw += splitter.progress() + splitter.end()
    entries = []
    for each in raw:
        line = parse_line(each, default=LogLevel.LOG_LEVEL_INFO)
        entry = LogEntry(level=line.level, message=line.message, rank=line.rank, fields=line.fields)
        assert entry.ByteSize() < 256 * 1024
        entries.append(entry)
    with memory_folder() as path:
        logs.create(path / "log")
        writer = LogWriter(path / "log")
        writer.append(entries)
        writer.close()
        with LogReader(path / "log") as reader:
            assert reader.last_offset() == len(entries)


@often
@given(name=names)
@example(name=b"step-\xff1")
@example(name=b"a\n\x1b[31mb")
def test_any_name(name: str | bytes) -> None:
    shown = printable(os.fsdecode(name))
    assert shown.encode()
    assert shown.isprintable()
    assert len(shown) < 2048
    orjson.dumps(shown)


@often
@given(tree=trees)
@example(tree={b"deep": 1200})
@example(tree={b"m\xff.bin": b"model", b"link": "to /etc", b"fifo": "fifo"})
@example(tree={b"x" * 255: b"", b"y": {b"x" * 255: "hard"}})
def test_any_tree(tree: dict[bytes, Any]) -> None:
    planted: dict[str, Any] = {"print": lambda _: None}
    exec(PLANT, planted)
    limits = Limits(depth=100, entries=1000)
    with memory_folder() as path:
        (path / "from").mkdir()
        (path / "to").mkdir()
        planted["plant"](tree, path / "from")
        with Directory.open(path / "from") as source, Directory.open(path / "to") as target:
            try:
                report = copy_tree(source, target, threading.Event(), limits=limits)
            except LimitReached:
                assert any(_is_deep(what) for what in _all(tree)), "nothing is over the limits"
            else:
                assert tree_size(source, limits) >= tree_size(target, limits)
                assert report.files == _files(path / "to")
        with Directory.open(path) as above:
            remove_tree(above, "from")
            remove_tree(above, "to")
            assert not above.entries(limit=10)


def _all(tree: dict[bytes, Any]) -> Iterator[Any]:
    for what in tree.values():
        yield what
        if isinstance(what, dict):
            yield from _all(what)


def _is_deep(what: object) -> bool:
    return isinstance(what, int)


def _files(path: Path) -> int:
    """How many files there are, and nothing but files and directories."""
    count = 0
    folders = [os.fsencode(path)]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                assert entry.is_file(follow_symlinks=False), entry
                count += 1
    return count
