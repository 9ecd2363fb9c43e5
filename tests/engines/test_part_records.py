"""What a node's disk has lost of a run is said in the job's log, once, wherever it was."""

from contextlib import closing
from pathlib import Path

import pytest

from app.coordinator.engines.agent.records import RecordsReader
from app.coordinator.engines.remote.records.merging import MergedRecords
from app.coordinator.engines.remote.records.part_records import PartRecords
from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogReader, LogWriter
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.storage.job_directory import JobDir, RunDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRecords
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, WatchJobResponse

END = b'{"exit_code": 0}'
LOST = "Gap: lines {} to {} of node n are damaged on its disk."


def lines(first: int, *texts: str) -> RunRecords:
    entries = [LogEntry(offset=first + at, message=text) for at, text in enumerate(texts)]
    data = WatchJobResponse(logs=entries).SerializeToString()
    return RunRecords(epoch="e", first_line=first, lines=data)


def messages(run: RunDir) -> list[str]:
    with LogReader(run.job.log) as reader:
        return [entry.message for entry in reader.read(Cursor(), limit=100).entries]


def test_lines_lost_at_the_end_of_a_nodes_records_are_said(
    run: RunDir, records: MergedRecords
) -> None:
    part = PartRecords(records, 0, "n")
    for message in (
        lines(1, "a", "b"),
        RunRecords(epoch="e", lost_through=5),
        RunRecords(epoch="e", end=END),
    ):
        part.take(message)
    assert part.end is not None
    assert messages(run) == ["a", "b", LOST.format(3, 5)]


def test_what_was_said_to_be_lost_is_not_said_again(run: RunDir, records: MergedRecords) -> None:
    part = PartRecords(records, 0, "n")
    lost = RunRecords(epoch="e", lost_through=2)
    for message in (lost, lost, lines(3, "c"), lost):
        part.take(message)
    assert part.taken == (3, 0)
    assert messages(run) == [LOST.format(1, 2), "c"]


def test_a_gap_is_said_once_though_the_lines_behind_it_are_taken_later(
    run: RunDir, records: MergedRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = PartRecords(records, 0, "n")
    append = LogWriter.append

    def on_full_disk(writer: LogWriter, entries: list[LogEntry]) -> None:
        if any(entry.message == "c" for entry in entries):
            raise OSError(28, "no space")
        append(writer, entries)

    monkeypatch.setattr(LogWriter, "append", on_full_disk)
    with pytest.raises(OSError, match="no space"):
        part.take(lines(3, "c"))
    monkeypatch.setattr(LogWriter, "append", append)
    part.take(lines(3, "c"))
    assert messages(run) == [LOST.format(1, 2), "c"]


def test_a_line_that_is_damaged_on_a_nodes_disk_is_told_as_such(
    run: RunDir, records: MergedRecords, tmp_path: Path
) -> None:
    """The others are there, each in its place."""
    node = JobDir(tmp_path / "node")
    logs.create(node.log)
    MetricsWriter(node.metrics).close()
    with closing(LogWriter(node.log)) as writer:
        writer.append([LogEntry(message=text) for text in ("line a", "line b", "line c")])
    entries = Path(logs.entries_path(node.log))
    entries.write_bytes(entries.read_bytes().replace(b"line b", b"line\xffb"))
    part = PartRecords(records, 0, "n")
    with closing(RecordsReader(node)) as reader:
        read = reader.read(after_line=0, after_snapshot=0)
        nothing = reader.read(after_line=3, after_snapshot=0)
    assert (read.first_line, read.line_behind) == (1, 3)
    assert nothing.is_empty
    part.take(RunRecords(epoch="e", first_line=read.first_line, lines=read.lines))
    first, damaged, last = messages(run)
    assert (first, last) == ("line a", "line c")
    assert "damaged" in damaged
