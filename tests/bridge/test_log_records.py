"""Log entries that are read in one pass are as the contract and the converter have them."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.bridge.contract.fields import MAX_OFFSET, MAX_TEXT, check_fields
from app.bridge.converters import converter_of
from app.bridge.streams.json_lines import one_line
from app.bridge.streams.log_records import LogRecords
from app.errors import BrokenContract
from app.hub.upstream import LogRecord
from generated.mindcoordinator.v1.watch_pb2 import LogEntry

TEXTS = st.one_of(
    st.sampled_from(["", "stdout", "a\u2028b", "\x85", "\u00e9", '"\\\n\x00', "\U0001f600"]),
    st.text(max_size=20),
)
SECONDS = st.one_of(
    st.sampled_from([0, 1_700_000_000, -62_135_596_800, -62_135_596_801, 253_402_300_800]),
    st.integers(-(2**63), 2**63 - 1),
)
NANOS = st.one_of(
    st.sampled_from([0, 1, 1_000, 120_000_000, 999_999_999, 1_000_000_000, -1]),
    st.integers(-(2**31), 2**31 - 1),
)
ENTRIES = st.builds(
    LogEntry,
    offset=st.one_of(st.integers(1, 9), st.integers(-(2**63), 2**63 - 1)),
    level=st.one_of(st.integers(0, 5), st.sampled_from([-1, 255, 256])),
    message=TEXTS,
    timestamp=st.one_of(st.none(), st.builds(Timestamp, seconds=SECONDS, nanos=NANOS)),
    source=TEXTS,
    rank=st.one_of(st.integers(0, 3), st.sampled_from([-1, 2**31 - 1])),
    node_id=TEXTS,
    fields=st.dictionaries(TEXTS, TEXTS, max_size=2),
)


def entry(**fields: Any) -> LogEntry:
    whole = {
        "offset": 1,
        "level": 2,
        "message": "m",
        "timestamp": Timestamp(seconds=1_700_000_000, nanos=5_000),
        "source": "stdout",
        "rank": 1,
        "node_id": "n",
    }
    return LogEntry(**{**whole, **fields})


@settings(deadline=None)
@given(entries=st.lists(ENTRIES, max_size=5))
@example(entries=[entry(), entry(offset=2, message="\u2029"), entry(timestamp=None)])
@example(entries=[entry(), entry(timestamp=Timestamp(seconds=5, nanos=-1))])
@example(entries=[entry(), entry(offset=MAX_OFFSET), entry(offset=MAX_OFFSET + 1)])
def test_entries_are_checked_and_written_as_elsewhere(entries: list[LogEntry]) -> None:
    reader = LogRecords()
    # Once more, when it remembers what they have in common.
    for _ in range(2):
        for each in entries:
            if (problem := problem_of(each)) is not None:
                with pytest.raises(BrokenContract) as broken:
                    reader.read([entry(), each])
                assert broken.value.problem == problem
            else:
                data = one_line(converter_of(LogEntry)(each))
                assert reader.read([entry(), each])[1:] == [
                    LogRecord(each.offset, each.level, data)
                ]


def problem_of(entry: LogEntry) -> str | None:
    try:
        check_fields(entry)
    except BrokenContract as broken:
        return broken.problem
    return None


def test_entries_one_behind_the_other_are_those_that_they_are_alone() -> None:
    entries = [
        entry(),
        entry(offset=2, timestamp=Timestamp(seconds=1_700_000_000, nanos=6_000)),
        entry(offset=3, timestamp=None),
        entry(offset=4, timestamp=Timestamp(seconds=1_700_000_001, nanos=6_000)),
        entry(offset=5, rank=2, node_id=""),
        entry(offset=6, level=4, fields={"a": "b"}),
        entry(offset=7, level=77),
        entry(offset=8, timestamp=Timestamp(nanos=120_000_000)),
        entry(offset=9, timestamp=Timestamp(seconds=1)),
    ]
    reader = LogRecords()
    alone = [LogRecords().read([each])[0] for each in entries]
    assert reader.read(entries) == alone
    assert reader.read(entries) == alone


def test_every_field_of_the_contract_is_written() -> None:
    assert list(converter_of(LogEntry)(entry())) == [
        "offset",
        "level",
        "message",
        "timestamp",
        "source",
        "rank",
        "node_id",
        "fields",
    ]


def test_a_text_that_is_too_long_is_refused_however_often_it_comes() -> None:
    reader = LogRecords()
    assert len(reader.read([entry(message="m" * MAX_TEXT)])) == 1
    for long in (entry(message="m" * (MAX_TEXT + 1)), entry(source="s" * (MAX_TEXT + 1))):
        for _ in range(2):
            with pytest.raises(BrokenContract) as broken:
                reader.read([long])
            assert "must be at most" in broken.value.problem


def test_what_is_remembered_is_bounded() -> None:
    reader = LogRecords()
    for number in range(2 * LogRecords.MOST):
        reader.read([entry(node_id=f"n{number}")])
    assert len(reader._origins) == LogRecords.MOST
    assert reader.read([entry(node_id="n0")]) == LogRecords().read([entry(node_id="n0")])
