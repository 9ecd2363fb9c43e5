"""Levels, tracebacks and unfinished lines, as training scripts and their libraries write them."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.engines.local.runner.process import Pipe, TrainingProcess
from app.coordinator.jobs.secrets import Concealer
from app.coordinator.logs.lines import NOTHING, Line, LineSplitter, Text, parse_line
from app.coordinator.logs.log import MAX_MESSAGE
from app.coordinator.logs.new_entry import AnyEntry, numbered
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

INFO, WARNING, ERROR, DEBUG = (
    LogLevel.LOG_LEVEL_INFO,
    LogLevel.LOG_LEVEL_WARNING,
    LogLevel.LOG_LEVEL_ERROR,
    LogLevel.LOG_LEVEL_DEBUG,
)
BAR = " 45%|████▌     | 45/100 [00:04<00:05, 10.02it/s]"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("\x1b[31mERROR\x1b[0m: bad", ERROR),
        ("\x1b[1;33mWARNING\x1b[0m x", WARNING),
        ("\x1b[38;5;196m[ERROR]\x1b[m x", ERROR),
        ("\x1b[0mDEBUG x", DEBUG),
        ("[rank0]: ERROR: x", ERROR),
        ("[rank12]:WARNING x", WARNING),
        ("[default3]:ERROR: x", ERROR),
        ("[rank0]:\x1b[31m ERROR: x", ERROR),
        ("2026-11-26 20:00:00,123 - root - ERROR - x", ERROR),
        ("2026-11-26 20:00:00,123 - my.module - WARNING - x", WARNING),
        ("2026-11-26 20:00:00,123 - my module - DEBUG - x", DEBUG),
        ("2026-11-26 20:00:00,123 ERROR x", ERROR),
        ("2026-11-26 20:00:00,123 [ERROR] x", ERROR),
        ("2026-11-26 20:00:00,123 - ERROR - x", ERROR),
        ("2026-11-26T20:00:00.123456Z ERROR x", ERROR),
        ("[2026-11-26 20:00:00,123][__main__][ERROR] - x", ERROR),
        ("[2026-11-26 20:00:00,123] [main] [WARNING] x", WARNING),
        ("2026-11-26 20:00:00.123 | ERROR    | mod:run:12 - x", ERROR),
        ("2026-11-26 20:00:00.123 | SUCCESS  | mod:run:12 - x", INFO),
        ("2026-11-26 20:00:00 | mod | ERROR | x", ERROR),
        ("11/26/2026 20:00:00 - ERROR - transformers.trainer - x", ERROR),
        ("20:00:00 ERROR x", ERROR),
        ("[20:00:00] ERROR    x", ERROR),
        ("[rank0]: 2026-11-26 20:00:00,123 - root - ERROR - x", ERROR),
        ("\x1b[32m2026-11-26 20:00:00\x1b[0m | \x1b[31mERROR\x1b[0m | x", ERROR),
        ("[rank0]:[W1126 20:00:00.123 ProcessGroup.cpp:1] x", WARNING),
        ("E1126 20:00:00.123456 140 x.cc:1] x", ERROR),
        (BAR + "ERROR: loss is nan", ERROR),
        (BAR + " 2026-11-26 20:00:00,123 - root - ERROR - x", ERROR),
        ("Epoch 3:" + BAR + "WARNING: x", WARNING),
        ("45it [00:04, 10.02it/s]ERROR: x", ERROR),
        # What only has such words has no level.
        ("2026-11-26 20:00:00 no ERROR was found", None),
        ("2026-11-26 20:00:00 - there is no ERROR here", None),
        ("2026-11-26 20:00:00 - root - nothing to ERROR about", None),
        ("loss 0.5 - ERROR rate 3 %", None),
        ("a - ERROR - b", None),
        ("Error handling is on", None),
        ("[rank0]: errors: none", None),
        (BAR, None),
        ("100% of ERROR cases", None),
        ("[0, 1, 2] ERROR", None),
        ("\x1b[31m", None),
        ("", None),
    ],
)
def test_the_level_is_recognized_behind_what_a_line_begins_with(
    text: str, level: LogLevel.ValueType | None
) -> None:
    for default in (INFO, WARNING):
        line = parse_line(text.encode(), default=default)
        assert line == Line(default if level is None else level, text)


@settings(settings.get_profile("often"))
@given(st.text(alphabet="|-:[]% \x1b019TZ.,mitERO/", max_size=3000))
def test_no_text_takes_long(text: str) -> None:
    assert parse_line(text.encode(), default=INFO).message == text


def long_json(size: int, *, order: str, level: str = "error") -> bytes:
    members = {
        "level": f'"level": {json.dumps(level)}',
        "message": '"message": ' + json.dumps("x" * size),
        "nested": '"nested": {"level": "debug", "a": ["level", "debug", {"level": "info"}]}',
        "text": '"text": ' + json.dumps('"level": "debug", {\\"'),
    }
    return ("{" + ", ".join(members[name] for name in order.split()) + "}").encode()


@pytest.mark.parametrize("size", [MAX_MESSAGE, MAX_MESSAGE + 1000, 1_000_000])
@pytest.mark.parametrize("step", [4096, 65_537, 10_000_000])
@pytest.mark.parametrize(
    "order",
    [
        "level message nested text",
        "message level nested text",
        "nested text message level",
        "text nested message text nested level",
    ],
)
@pytest.mark.parametrize("conceal", [NOTHING, Concealer(["a-credential-of-some-length" * 9])])
def test_a_long_json_line_keeps_its_level(
    size: int, step: int, order: str, conceal: Concealer
) -> None:
    splitter = LineSplitter(clock=Clock(), conceal=conceal)
    raw = long_json(size, order=order) + b"\nnext\n"
    lines: list[Text] = []
    for at in range(0, len(raw), step):
        lines += splitter.feed(raw[at : at + step])
    assert [parse_line(line, default=INFO).level for line in lines] == [ERROR, INFO]
    assert b"[cut: the line has" in bytes(lines[0])


@settings(settings.get_profile("often"))
@given(st.data())
def test_the_level_is_found_however_a_long_json_line_arrives(data: st.DataObject) -> None:
    before = data.draw(st.dictionaries(st.text(max_size=9), st.text(max_size=40), max_size=5))
    before.pop("level", None)
    value = {**before, "message": "\\\"'" * (MAX_MESSAGE // 2), "level": "warning"}
    raw = json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode() + b"\n"
    splitter = LineSplitter(clock=Clock())
    lines: list[Text] = []
    while raw:
        size = data.draw(st.integers(20_000, 90_000))
        lines += splitter.feed(raw[:size])
        raw = raw[size:]
    assert [parse_line(line, default=INFO).level for line in lines] == [WARNING]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2**63, "9223372036854775808"),
        (2**64, "18446744073709551616"),
        (2**64 - 1, "18446744073709551615"),
        (-(2**63) - 1, "-9223372036854775809"),
        (10**30 + 1, "1000000000000000000000000000001"),
        (-(10**18), "-1000000000000000000"),
    ],
)
def test_integers_of_more_than_64_bits_stay_exact(number: int, text: str) -> None:
    raw = json.dumps({"level": "info", "message": "m", "n": number, "in": [{"n": number}]})
    line = parse_line(raw.encode(), default=WARNING)
    assert line.fields["n"] == text
    assert text in line.fields["in"]
    assert (line.level, line.message) == (INFO, "m")


# Tracebacks and unfinished lines, from a pipe to the log.


class Output:
    """What one process writes to stderr, and the entries that become of it."""

    def __init__(self, clock: Clock, conceal: Concealer = NOTHING) -> None:  # type: ignore[assignment]  # its protocol
        self._ends = os.pipe()
        self.clock = clock
        process = TrainingProcess(0, "n", (self._ends[0], os.dup(self._ends[0])), conceal=conceal)
        self._process = process
        self.pipe = Pipe(process, "stderr", self._ends[0], conceal=conceal, clock=clock)
        self.entries: list[LogEntry] = []

    def write(self, text: str | bytes) -> None:
        os.write(self._ends[1], text if isinstance(text, bytes) else text.encode())
        self._add(self.pipe.read() or [])

    def passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self._add(self.pipe.progress())

    def end(self) -> None:
        self._add(self.pipe.end())

    def _add(self, entries: Sequence[AnyEntry]) -> None:
        for entry in numbered(entries, after=len(self.entries)):
            if isinstance(entry, bytes):
                entry = LogEntry.FromString(entry)
                entry.offset = len(self.entries) + 1
            self.entries.append(entry)

    def close(self) -> None:
        os.close(self._ends[1])
        self._process.close()

    def told(self, *fields: str) -> list[tuple[str, ...]]:
        return [(e.message, *(e.fields.get(name, "") for name in fields)) for e in self.entries]


@contextmanager
def output(conceal: Concealer = NOTHING) -> Iterator[Output]:  # type: ignore[assignment]  # its protocol
    written = Output(Clock(), conceal)
    try:
        yield written
    finally:
        written.close()


FIRST = """Traceback (most recent call last):
  File "train.py", line 3, in <module>
    main()
    ~~~~^^
  [Previous line repeated 995 more times]
ValueError: bad
"""


def test_a_traceback_is_entries_that_can_be_folded() -> None:
    with output() as written:
        written.write("before\n" + FIRST + "after\nINFO: more\n")
        lines = FIRST.splitlines()
        assert written.told("block") == [
            ("before", ""),
            *((line, "2") for line in lines),
            ("after", ""),
            ("INFO: more", ""),
        ]
        levels = [entry.level for entry in written.entries]
        assert levels == [WARNING, *[ERROR] * len(lines), WARNING, INFO]


def test_a_chain_of_exceptions_is_one_traceback() -> None:
    chain = "\nDuring handling of the above exception, another exception occurred:\n\n"
    with output() as written:
        written.write(FIRST + chain + FIRST + "after\n")
        blocks = [block for _, block in written.told("block")]
        # The blank line came before anybody could know that more follows.
        assert blocks == [*["1"] * 6, "", "1", "1", *["1"] * 6, ""]


def test_ranks_have_tracebacks_of_their_own() -> None:
    with output() as written:
        for line in FIRST.splitlines():
            for rank in (0, 1):
                written.write(f"[rank{rank}]: {line}\n")
        written.write("[rank0]: after\n")
        assert [block for _, block in written.told("block")] == [*["1", "2"] * 6, ""]
        assert {entry.level for entry in written.entries[:-1]} == {ERROR}


def test_an_exception_group_is_one_traceback() -> None:
    group = """  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 1, in <module>
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "a.py", line 2, in f
    | ValueError: one
    +------------------------------------
"""
    with output() as written:
        written.write(group + "after: x\n")
        assert [block for _, block in written.told("block")] == [*["1"] * 8, ""]


def test_a_traceback_ends_after_200_lines_and_after_a_second() -> None:
    with output() as written:
        written.write("Traceback (most recent call last):\n" + "  line\n" * 250)
        blocks = [block for _, block in written.told("block")]
        assert blocks == [*["1"] * 200, *[""] * 51]
    with output() as written:
        written.write("Traceback (most recent call last):\n  line\n")
        written.passes(1.0)
        written.write("  line\n")
        assert [block for _, block in written.told("block")] == ["1", "1", ""]


@pytest.mark.parametrize("line", ["WARNING:root:x", "no exception at all", "[ERROR] x"])
def test_another_line_ends_a_traceback(line: str) -> None:
    with output() as written:
        written.write(f"Traceback (most recent call last):\n  line\n{line}\n")
        assert [block for _, block in written.told("block")] == ["1", "1", ""]


def test_an_unfinished_line_is_told_after_a_second() -> None:
    with output() as written:
        written.write("Loading")
        written.passes(0.9)
        assert written.entries == []
        written.passes(0.1)
        assert written.told("partial", "continues") == [("Loading", "true", "")]
        written.passes(5)
        assert len(written.entries) == 1
        written.write(" ...")
        written.passes(0)
        assert written.told("partial", "continues")[1:] == []
        written.passes(1)
        assert written.told("partial", "continues")[1:] == [(" ...", "true", "1")]
        written.write(" done\nnext\n")
        assert written.told("partial", "continues")[2:] == [(" done", "", "1"), ("next", "", "")]


def test_a_line_that_ends_without_more_has_no_further_piece() -> None:
    with output() as written:
        written.write("ERROR: x")
        written.passes(1)
        written.write("\nnext\n")
        assert [entry.message for entry in written.entries] == ["ERROR: x", "next"]
        assert written.entries[0].level == ERROR


def test_pieces_have_the_level_of_their_line() -> None:
    with output() as written:
        written.write("DEBUG: x")
        written.passes(1)
        written.write("ERROR: y\n")
        assert [entry.level for entry in written.entries] == [DEBUG, DEBUG]


def joined(entries: list[LogEntry]) -> list[str]:
    """The lines, as whoever joins the pieces has them."""
    lines: dict[int, str] = {}
    for entry in entries:
        first = int(entry.fields.get("continues", entry.offset))
        lines[first] = lines.get(first, "") + entry.message
    return list(lines.values())


@settings(settings.get_profile("often"))
@given(
    lines=st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30),
        max_size=6,
    ),
    data=st.data(),
)
def test_joined_pieces_are_the_line(lines: list[str], data: st.DataObject) -> None:
    raw = "".join(f"{line}\n" for line in lines).encode()
    with output() as written:
        while raw:
            size = data.draw(st.integers(1, len(raw)))
            written.write(raw[:size])
            raw = raw[size:]
            written.passes(data.draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])))
        written.end()
        assert joined(written.entries) == lines


def test_bytes_that_are_not_utf8_are_the_same_in_pieces() -> None:
    raw = b"\xff\xe2\x82A\xf0\x9f\x98\x80\xe2\x82\xac\xc3"
    with output() as written:
        for at in range(len(raw)):
            written.write(raw[at : at + 1])
            written.passes(1)
        written.write("\n")
        assert joined(written.entries) == [raw.decode("utf-8", "replace")]


TOKEN = "hf_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123"


@settings(max_examples=100)
@given(st.data())
def test_no_piece_shows_a_part_of_a_credential(data: st.DataObject) -> None:
    with output(Concealer([TOKEN, TOKEN[:20]])) as written:
        raw = f"a {TOKEN} b {TOKEN[:20]} c"
        while raw:
            size = data.draw(st.integers(1, len(raw)))
            written.write(raw[:size])
            raw = raw[size:]
            written.passes(1)
        written.write("\n")
        assert joined(written.entries) == ["a *** b *** c"]


def test_a_long_line_in_pieces_is_cut_as_a_whole() -> None:
    with output() as written:
        for _ in range(20):
            written.write("x" * 10_000)
            written.passes(1)
        written.write("\n")
        (line,) = joined(written.entries)
        assert line == "x" * MAX_MESSAGE + " ... [cut: the line has 200000 bytes]"
        assert written.entries[-1].fields["continues"] == "1"


def test_a_progress_bar_has_no_pieces() -> None:
    with output() as written:
        written.write("\r 10%|# | 1/10 [00:01<00:09]")
        written.passes(1)
        written.write("\r 20%|## | 2/10 [00:02<00:08]")
        written.passes(1)
        written.write("\n")
        assert [dict(entry.fields) for entry in written.entries] == [{}, {}]


def test_a_line_that_is_overwritten_after_it_was_told_begins_anew() -> None:
    with output() as written:
        written.write("starting")
        written.passes(1)
        written.write("\rstarted\n")
        assert written.told("partial", "continues") == [
            ("starting", "true", ""),
            ("started", "", ""),
        ]
    with output() as written:
        written.write("windows")
        written.passes(1)
        written.write("\r\nnext\r\n")
        assert [entry.message for entry in written.entries] == ["windows", "next"]
