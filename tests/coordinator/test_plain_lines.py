"""Lines that become entries together are those that they would become one by one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from app.coordinator.engines.local.runner.process import Pipe, TrainingProcess
from app.coordinator.engines.local.runner.recording import RecordBounds, Recorder
from app.coordinator.jobs.secrets import Concealer
from app.coordinator.logs import log as logs
from app.coordinator.logs.log import MAX_MESSAGE, LogReader
from app.coordinator.logs.new_entry import AnyEntry
from app.coordinator.logs.plain_lines import PlainLines
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.v1.watch_pb2 import LogEntry

SECRET = "sk-0123456789abcdef"
TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 1, in <module>
    import nothing
ModuleNotFoundError: No module named 'nothing'
"""
SAMPLES = [
    b"step 5 of 100, loss 0.5",
    b"",
    b"   ",
    b"INFO: begun",
    b"  WARNING root late",
    b"[error] it failed",
    b"2026-11-27 10:00:00,123 - trainer - ERROR - lost",
    b"[rank1]: ERROR here",
    b"W1126 20:00:00.123 x.cpp:1] late",
    b"\x1b[31mERROR\x1b[0m in red",
    b" 45%|####5     | 45/100 [00:04<00:05, 10.0it/s]ERROR: late",
    b"45it [00:04, 10.0it/s]",
    b"\r 10%\r 20%",
    b"one\r",
    b'{"level": "ERROR", "message": "m", "step": 3}',
    b'{"level": "INFO", "message": "\\u0054raceback (most recent call last):"}',
    b'{"loss": 0.5}',
    b"{ is no JSON",
    b"  File of a traceback",
    b"ValueError: x",
    b"During handling of the above exception, another exception occurred:",
    f"its key is {SECRET}, and".encode(),
    SECRET[:10].encode(),
    SECRET[10:].encode(),
    b"\xff\xfe no UTF-8",
    "äöü \u2028 \x85 \u3000".encode(),
    "\u3000ERROR: behind a wide space".encode(),
    b"x" * 1023,
    b" " * 1020 + b"INFO",
    b" " * 1020 + b"INFORMATION",
    b"y" * (MAX_MESSAGE - 1),
    b"z" * (MAX_MESSAGE + 10),
    *TRACEBACK.encode().split(b"\n"),
]
LINES = st.one_of(
    st.sampled_from(SAMPLES),
    st.text(max_size=40).map(lambda text: text.replace("\n", "").encode()),
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
)


class Output:
    """What a process writes, on its way into a log."""

    def __init__(self, folder: Path, source: str, *, together: bool) -> None:
        self._ends = os.pipe()
        conceal = Concealer([SECRET])
        self.process = TrainingProcess(
            3, "node-1", (self._ends[0], os.dup(self._ends[0])), conceal=conceal
        )
        self.now = 100.0
        self._pipe = Pipe(
            self.process, source, self._ends[0], conceal=conceal, clock=lambda: self.now
        )
        if not together:
            self._pipe._plain = OneByOne()
        self.together = 0
        self._job = JobDir(folder)
        logs.create(self._job.log)
        self._job.metrics.mkdir(exist_ok=True)
        self._recorder = Recorder(self._job, RecordBounds())

    def write(self, data: bytes) -> None:
        """Write, and read what was written."""
        while data:
            data = data[os.write(self._ends[1], data[: 32 * 1024]) :]
            self._add(self._pipe.read() or [])

    def passes(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self._add(self._pipe.progress())

    def end(self) -> list[LogEntry]:
        """The whole log, but for the times."""
        self._add(self._pipe.end())
        self._recorder.close()
        entries: list[LogEntry] = []
        with LogReader(self._job.log) as reader:
            cursor = Cursor()
            while (page := reader.read(cursor, limit=1000)).entries:
                entries += page.entries
                cursor = page.cursor
        for entry in entries:
            assert entry.timestamp.seconds
            entry.ClearField("timestamp")
        return entries

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._ends[1])
        self.process.close()

    def _add(self, entries: Sequence[AnyEntry]) -> None:
        self.together += sum(isinstance(entry, bytes) for entry in entries)
        assert not self._recorder.add_lines(entries)


class OneByOne(PlainLines):
    """Leaves every line to those who look at it by itself."""

    def __init__(self) -> None:
        pass

    def entries(self, data: bytes, rest: LogEntry) -> None:
        """None."""
        return


@contextmanager
def outputs(source: str) -> Iterator[tuple[Output, Output]]:
    """Two of a kind, of which one takes lines together."""
    with (
        TemporaryDirectory() as one,
        TemporaryDirectory() as other,
        closing(Output(Path(one), source, together=True)) as together,
        closing(Output(Path(other), source, together=False)) as apart,
    ):
        yield together, apart


@given(st.lists(LINES, max_size=12), st.data(), st.sampled_from(["stdout", "stderr"]))
def test_the_same_bytes_become_the_same_entries(
    lines: list[bytes], data: st.DataObject, source: str
) -> None:
    stream = b"\n".join(lines)
    with outputs(source) as (together, apart):
        while stream:
            size = data.draw(st.integers(1, len(stream)) | st.just(len(stream)))
            seconds = data.draw(st.sampled_from([0.0, 0.0, 0.0, 1.5]))
            for output in (together, apart):
                output.write(stream[:size])
                output.passes(seconds)
            stream = stream[size:]
        assert together.end() == apart.end()
        assert together.process.last_words == apart.process.last_words
        assert not apart.together


def test_each_kind_of_line_is_the_same_among_plain_ones() -> None:
    with outputs("stderr") as (together, apart):
        for line in SAMPLES:
            for output in (together, apart):
                output.write(b"plain one\n" + line + b"\nplain other\n")
            assert together.process.last_words == apart.process.last_words == "plain other"
        assert together.end() == apart.end()
        assert together.together


def test_a_traceback_goes_on_in_the_next_read() -> None:
    began, frame, *rest = TRACEBACK.encode().splitlines(keepends=True)
    with outputs("stdout") as (together, apart):
        for output in (together, apart):
            output.write(b"plain\n" + began)
            output.write(frame + b"".join(rest) + b"plain\n")
        entries = together.end()
        assert entries == apart.end()
        assert [entry.fields.get("block", "") for entry in entries] == ["", *["2"] * 4, ""]


def test_plain_lines_are_taken_together_and_numbered_densely() -> None:
    with outputs("stdout") as (together, apart):
        text = b"".join(b"step %d, loss 0.5\n" % number for number in range(20_000))
        for output in (together, apart):
            output.write(text)
        entries = together.end()
        assert [entry.offset for entry in entries] == [*range(1, 20_001)]
        assert entries == apart.end()
        # All but those that were cut where a read ended.
        assert together.together > 19_900
