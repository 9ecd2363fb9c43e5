"""Lines out of what a process writes."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.coordinator.engines.local.runner.process import stamped
from app.coordinator.jobs.secrets import Concealer
from app.coordinator.logs.lines import Line, LineSplitter, parse_line
from app.coordinator.logs.log import MAX_MESSAGE
from app.coordinator.storage.records import MAX_PAYLOAD
from generated.mindcoordinator.v1.watch_pb2 import LogLevel

INFO, WARNING, ERROR, DEBUG = (
    LogLevel.LOG_LEVEL_INFO,
    LogLevel.LOG_LEVEL_WARNING,
    LogLevel.LOG_LEVEL_ERROR,
    LogLevel.LOG_LEVEL_DEBUG,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    st.lists(st.binary(max_size=50).filter(lambda b: b"\n" not in b and b"\r" not in b)), st.data()
)
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter(clock=Clock())
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert found + splitter.end() == lines


def test_a_last_line_without_a_break_counts() -> None:
    splitter = LineSplitter(clock=Clock())
    assert splitter.feed(b"one\ntwo") == [b"one"]
    assert splitter.end() == [b"two"]
    assert splitter.end() == []


def test_windows_line_ends() -> None:
    splitter = LineSplitter(clock=Clock())
    assert splitter.feed(b"one\r\ntwo\r") == [b"one"]
    assert splitter.feed(b"\n\r\nx\n") == [b"two", b"", b"x"]


def test_a_progress_bar_collapses_to_its_last_state() -> None:
    clock = Clock()
    splitter = LineSplitter(clock=clock)
    assert splitter.feed(b"\r 10%") == []
    assert splitter.progress() == [b" 10%"]
    for percent in range(11, 90):
        assert splitter.feed(b"\r %d%%" % percent) == []
        assert splitter.progress() == []
    assert splitter.due() == 101.0
    clock.now = 101.0
    assert splitter.progress() == [b" 89%"]
    assert splitter.due() is None
    assert splitter.feed(b"\r100%\nnext\n") == [b"100%", b"next"]


def test_a_state_that_was_shown_is_not_shown_again_at_its_end() -> None:
    splitter = LineSplitter(clock=Clock())
    splitter.feed(b"\r100%")
    assert splitter.progress() == [b"100%"]
    assert splitter.feed(b"\nnext\n") == [b"next"]


def test_a_line_of_ten_megabytes_is_cut_with_a_mark() -> None:
    splitter = LineSplitter(clock=Clock())
    for _ in range(10):
        assert splitter.feed(b"x" * 1_000_000) == []
        assert len(splitter._line) <= MAX_MESSAGE
    (line,) = splitter.feed(b"\n")
    assert line.startswith(b"x" * MAX_MESSAGE)
    assert line.endswith(b"... [cut: the line has 10000000 bytes]")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"plain", INFO),
        (b"ERROR: x", ERROR),
        (b"ERROR", ERROR),
        (b"WARNING:root:x", WARNING),
        (b"[debug] x", DEBUG),
        (b"[WARN] x", WARNING),
        (b"Warning: x", WARNING),
        (b"CRITICAL - x", ERROR),
        (b"Error handling is on", INFO),
        (b"INFORMATION", INFO),
        (b"DEBUGGING", INFO),
        (b'{"level": "error", "message": "m"}', ERROR),
        (b'{"level": "strange", "message": "m"}', INFO),
        (b'{"level": 3}', INFO),
        (b"{not json", INFO),
        (b"{}", INFO),
    ],
)
def test_levels(raw: bytes, expected: LogLevel.ValueType) -> None:
    assert parse_line(raw, default=INFO).level == expected


def test_structured_lines() -> None:
    raw = b'{"level": "warning", "message": "m", "rank": 2, "a": "b", "c": [1, null]}'
    assert parse_line(raw, default=INFO) == Line(WARNING, "m", 2, {"a": "b", "c": "[1,null]"})
    assert parse_line(b'{"level": "info", "message": "m", "rank": true}', default=INFO).rank in (
        0,
        1,
    )


def test_bytes_that_are_not_utf8_survive_as_replacements() -> None:
    assert parse_line(b"a\xffb", default=INFO).message == "a�b"


@pytest.mark.parametrize("depth", [253, 254, 255, 300, 1000, 1023, 1024, 5000, 30_000])
def test_a_structured_line_may_be_nested_as_deep_as_it_likes(depth: int) -> None:
    raw = b'{"level":"error","message":"m","x":' + b"[" * depth + b"]" * depth + b"}"
    line = parse_line(raw, default=INFO)
    assert line in (
        Line(ERROR, "m", 0, {"x": ("[" * depth + "]" * depth)[:1024]}),
        Line(ERROR, "m", 0, {"x": "[left out: nested too deep]"}),
        Line(INFO, raw.decode(), 0, {}),
    )


@pytest.mark.parametrize(
    ("raw", "rank"),
    [
        (b"18446744073709551616", 0),
        (b"2147483648", 0),
        (b"2147483647", 2**31 - 1),
        (b"-1", 0),
        (b"1e3", 0),
    ],
)
def test_a_rank_that_is_none_is_0(raw: bytes, rank: int) -> None:
    line = parse_line(b'{"level":"info","message":"m","rank":' + raw + b"}", default=INFO)
    assert line.rank == rank


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 2**70)
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
structured = st.fixed_dictionaries(
    {"level": st.sampled_from(["info", "ERROR", "x"]), "message": values},
    optional={"rank": values, "k" * 2000: values, "\ud800": values},
).map(lambda value: json.dumps(value, ensure_ascii=True).encode())


@settings(settings.get_profile("often"))
@given(st.binary(max_size=2000) | structured)
@example(b'{"level":"info","message":"\\ud800"}')
@example(b'{"level":"info","message":"\\u0000","\\udfff":1}')
@example(b'{"level":"info","message":"m","n":' + b"9" * 5000 + b"}")
@example(b'{"level":"info","message":"m"' + b',"\\u20ac":1' * 5000 + b"}")
@example(b"\xff" * (64 * 1024 + 40))
@example(b'{"level":"info","message":"m","x":[' + b"1e5," * 16_000 + b"1]}")
def test_any_line_can_be_stored(raw: bytes) -> None:
    line = parse_line(raw, default=INFO)
    entry = stamped("stdout", line, node_id="n", rank=line.rank)
    assert len(entry.SerializeToString()) < MAX_PAYLOAD


TOKEN = b"hf_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123"
CONCEAL = Concealer([TOKEN.decode(), "first-line-of-key\nsecond-line-of-key"])


@pytest.mark.parametrize("ahead", range(MAX_MESSAGE - len(TOKEN) - 1, MAX_MESSAGE + 2))
@pytest.mark.parametrize("size", [4096, 10_007, 1_000_000])
def test_a_credential_at_the_cut_is_not_shown(ahead: int, size: int) -> None:
    splitter = LineSplitter(clock=Clock(), conceal=CONCEAL)
    text = b"x" * ahead + TOKEN + b"y" * 50
    for at in range(0, len(text), size):
        assert splitter.feed(text[at : at + size]) == []
    (line,) = splitter.feed(b"\n")
    assert TOKEN[:4] not in bytes(line)
    assert line.startswith(b"x" * min(ahead, MAX_MESSAGE))


def test_many_credentials_before_the_cut_bring_none_behind_it_into_view() -> None:
    splitter = LineSplitter(clock=Clock(), conceal=CONCEAL)
    (line,) = splitter.feed(TOKEN * 3000 + b"\n")
    assert TOKEN[:4] not in bytes(line)
    assert line.startswith(b"***" * (MAX_MESSAGE // len(TOKEN)))


def test_half_a_credential_in_a_progress_bar_is_not_shown() -> None:
    clock = Clock()
    splitter = LineSplitter(clock=clock, conceal=CONCEAL)
    assert splitter.feed(b"\rtoken " + TOKEN[:20]) == []
    assert splitter.progress() == [b"token ***"]
    clock.now += 1
    assert splitter.progress() == []
    assert splitter.feed(TOKEN[20:] + b" 10%") == []
    assert splitter.progress() == [b"token *** 10%"]
    assert splitter.feed(b"\n") == []


def test_half_a_credential_at_the_cut_of_a_progress_bar_is_not_shown() -> None:
    half = TOKEN[: len(TOKEN) // 2]
    splitter = LineSplitter(clock=lambda: 0.0, conceal=CONCEAL)
    splitter.feed(b"\r" + b"x" * (MAX_MESSAGE - 10) + half)
    (state,) = splitter.progress()
    assert half[:4] not in bytes(state)
    assert b"***" in bytes(state)


@pytest.mark.parametrize("told", [False, True])
def test_half_a_credential_at_the_end_of_an_output_is_not_shown(told: bool) -> None:
    now = 0.0
    splitter = LineSplitter(clock=lambda: now, conceal=CONCEAL)
    splitter.feed(b"token=" + TOKEN[:-1])
    now = 2.0
    pieces = splitter.progress() if told else []
    assert b"".join(pieces + splitter.end()) == b"token=***"


def test_lines_of_a_credential_are_not_shown() -> None:
    splitter = LineSplitter(clock=Clock(), conceal=CONCEAL)
    assert splitter.feed(b"a first-line-of-key\nsecond-line-of-key b\n") == [b"a ***", b"*** b"]


def test_fields_of_structured_lines_show_no_credential_however_it_is_escaped() -> None:
    escaped = "".join(f"\\u{byte:04x}" for byte in TOKEN)
    raw = (
        f'{{"level": "info", "message": "m {escaped}", "a": "{"x" * 1010}{escaped}",'
        f' "b": ["{escaped}"], "k{escaped}": 1}}'
    ).encode()
    line = parse_line(CONCEAL(raw), default=INFO, conceal=CONCEAL)
    assert line.message == "m ***"
    assert line.fields == {"a": "x" * 1010 + "***", "b": '["***"]', "k***": "1"}


def test_fields_that_are_too_long_or_too_many_end_in_a_mark() -> None:
    fields = {f"f{at}": at for at in range(70)} | {"f0": "x" * 5_000}
    raw = json.dumps({"level": "INFO", "message": "m", **fields}).encode()
    line = parse_line(raw, default=LogLevel.LOG_LEVEL_ERROR)
    assert line.fields["f0"] == "x" * 1023 + "…"
    assert line.fields["…"] == "6 more fields are left out"
