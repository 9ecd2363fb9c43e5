"""The synchronous core, driven through everything that can happen to it, in any order."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from app.hub.coding.gzip_stream import HEADER, GzipStream
from app.hub.core.cursors import Cursor, Step
from app.hub.core.feed_core import FeedCore
from app.hub.core.judging import Judging, Unjudged, judging_of, verdicts
from app.hub.upstream import End, LogPage, LogRecord, Position, Start
from app.log_filter import LogFilter
from tests.hub.sse import Event, parse

LEVELS = st.integers(1, 4)
FILTERS = st.sampled_from(
    [
        *(LogFilter(min_level=level) for level in (0, 2, 3, 4)),
        LogFilter(contains="A"),
        LogFilter(min_level=3, matches="[bc]"),
    ]
)
INDEX = st.integers(0, 1_000_000)


class Watcher(Cursor):
    """A cursor with what it received, in gzip too."""

    __slots__ = ("asked", "coded", "done", "parts", "received")

    def __init__(self, *, log_filter: LogFilter, asked: Position, gzip: bool = False) -> None:
        super().__init__(log_filter=log_filter, chunked=False, gzip=GzipStream() if gzip else None)
        self.received = bytearray()
        self.coded = bytearray(HEADER)
        #: Everything behind this place is wanted.
        self.asked = asked
        self.done = False
        #: What is left of what the coordinator answered.
        self.parts: list[LogPage] = []

    def take(self, data: bytes) -> None:
        """Be sent something alone."""
        self.received += data
        if self.gzip is not None:
            self.coded += self.gzip.compress(data)

    def check_coded(self) -> None:
        """End the stream in gzip: it says what was received, and its checksum agrees."""
        if self.gzip is not None:
            decoding = zlib.decompressobj(16 + zlib.MAX_WBITS)
            assert decoding.decompress(bytes(self.coded)) == self.received
            assert not decoding.eof
            assert not decoding.decompress(self.gzip.flush())
            assert decoding.eof


@dataclass
class Log:
    """A job's log at the coordinator, of one epoch."""

    epoch: str
    levels: list[int] = field(default_factory=list)
    first: int = 1
    #: Entries that the coordinator has lost within the log.
    lost: set[int] = field(default_factory=set)

    @property
    def last(self) -> int:
        return len(self.levels)

    def record(self, offset: int) -> LogRecord:
        text = self.text(offset).encode()
        data = b'{"epoch":"%b","offset":%d,"message":"%b"}' % (self.epoch.encode(), offset, text)
        return LogRecord(offset, self.levels[offset - 1], data)

    @staticmethod
    def text(offset: int) -> str:
        return "abcd"[offset % 4]

    def passes(self, offset: int, log_filter: LogFilter) -> bool:
        return log_filter.passes(
            level=self.levels[offset - 1],
            message=self.text(offset),
            source="",
            rank=0,
            timestamp_ns=0,
        )

    def kept(self, offset: int) -> bool:
        return offset >= self.first and offset not in self.lost

    def page(
        self, after: int, through: int, asked: LogFilter, own: LogFilter, size: int
    ) -> LogPage:
        records: list[LogRecord] = []
        missing: list[tuple[int, int]] = []
        place = max(after, self.first - 1)
        while place < min(through, self.last) and len(records) < size:
            place += 1
            if not self.kept(place):
                # Without a filter, the offsets have to do.
                if not asked.passes_all and self.levels[place - 1] >= asked.min_level:
                    missing.append((place, place))
            elif self.passes(place, asked):
                records.append(self.record(place))
        said = None
        if judging_of(own) is not Judging.BY_LEVEL:
            said = [self.passes(each.offset, own) for each in records]
        first = self.first if self.levels else 0
        return LogPage(
            self.epoch, records, place, first, self.last, asked, missing=missing, verdicts=said
        )


class SmallCore(FeedCore[Watcher]):
    """One that soon reads with a filter, and soon forgets holes."""

    NEAR = 5
    HOLES = 2


class CoreMachine(RuleBasedStateMachine):
    """Drives a core as its drivers would, against a model of the coordinator's log."""

    @initialize(entries=st.lists(LEVELS, max_size=30), tail=st.integers(0, 20))
    def open(self, entries: list[int], tail: int) -> None:
        self.core = SmallCore(history_bytes=600, slice_bytes=200)
        self.log = Log("e0", entries)
        self.logs = {"e0": self.log}
        self.watchers: list[Watcher] = []
        self.clock = 0.0
        self.up = False
        self.sent = 0
        self.rewound = False
        self.ended = False
        self.reconnect(tail)

    # The coordinator

    @rule(levels=st.lists(LEVELS, min_size=1, max_size=30))
    def grow(self, levels: list[int]) -> None:
        if not self.ended:
            self.log.levels.extend(levels)

    @rule(count=st.integers(1, 10))
    def drop_oldest(self, count: int) -> None:
        self.log.first = min(self.log.first + count, self.log.last + 1)

    @rule()
    def recreate(self) -> None:
        if not self.ended:
            self.up = False
            self.log = Log(f"e{len(self.logs)}")
            self.logs[self.log.epoch] = self.log

    # The stream

    @rule(tail=st.integers(0, 20))
    def reconnect(self, tail: int) -> None:
        if self.core.end is not None:
            return
        self.flush_with(full=set())
        log = self.log
        after = self.core.position
        place = max(log.last - tail, log.first - 1)
        if after is not None and after.epoch == log.epoch and after.offset <= log.last:
            place = max(after.offset, log.first - 1)
        self.core.start(
            Start(
                epoch=log.epoch,
                after_offset=place,
                first_offset=log.first if log.levels else 0,
                last_offset=log.last,
                status="TRAINING",
            )
        )
        self.sent = place
        self.up = True

    @rule()
    def break_off(self) -> None:
        self.up = False

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 40))
    def deliver(self, count: int) -> None:
        upto = min(self.sent + count, self.log.last)
        records = [self.log.record(n) for n in range(self.sent + 1, upto + 1) if self.log.kept(n)]
        self.clock += 1
        self.core.append(records, self.clock)
        self.sent = upto

    @precondition(lambda self: self.up)
    @rule(back=st.integers(1, 5))
    def repeat(self, back: int) -> None:
        first = max(self.sent - back, self.log.first)
        records = [self.log.record(n) for n in range(first, self.sent + 1) if self.log.kept(n)]
        self.core.append(records, self.clock)

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 5), lost=st.booleans())
    def skip(self, count: int, lost: bool) -> None:
        """Leave entries out of the stream; they are lost for good, or can be read back."""
        upto = min(self.sent + count, self.log.last)
        if lost and upto > self.core.last:
            self.log.lost.update(range(max(self.sent, self.core.last) + 1, upto + 1))
        self.sent = upto

    @precondition(lambda self: self.up)
    @rule()
    def end(self) -> None:
        """The job ends; its log is drained."""
        if self.core.end is not None:
            return
        self.ended = True
        self.deliver(10_000)
        self.flush_with(full=set())
        if not self.core.finish(End("COMPLETED", self.log.last)):
            # Something at the end was left out of the stream: read on from there.
            self.reconnect(0)
            self.deliver(10_000)
            self.flush_with(full=set())
            if self.log.last > self.core.last:
                self.core.skip_to(self.log.last)
            assert self.core.finish(End("COMPLETED", self.log.last))

    # Watchers

    @rule(log_filter=FILTERS, count=st.integers(0, 40))
    def join_tail(self, log_filter: LogFilter, count: int) -> None:
        self.core.hold_filter(log_filter)
        offset = self.core.find_tail(count, log_filter)
        while offset is None and judging_of(log_filter) is not Judging.BY_LEVEL:
            entries = self.core.newest_unjudged(log_filter, self.core.flushed)
            if not entries:
                break
            self.judge(log_filter, entries)
            offset = self.core.find_tail(count, log_filter)
        log = self.logs[self.core.epoch]
        if offset is None:
            passing = [
                n
                for n in range(log.first, self.core.flushed + 1)
                if log.passes(n, log_filter) and log.kept(n)
            ][-count:]
            offset = passing[0] - 1 if passing else self.core.flushed
        self.join(log_filter, offset)
        self.core.drop_filter(log_filter)

    @rule(log_filter=FILTERS, index=INDEX)
    def join_after(self, log_filter: LogFilter, index: int) -> None:
        """Come back with an id; perhaps from a replica that is ahead of this one."""
        self.join(log_filter, index % (self.logs[self.core.epoch].last + 1))

    def join(self, log_filter: LogFilter, offset: int) -> None:
        watcher = Watcher(
            log_filter=log_filter,
            asked=Position(self.core.epoch, offset),
            gzip=len(self.watchers) % 2 == 1,
        )
        self.core.hold_filter(log_filter)
        self.core.join(watcher, offset)
        self.watchers.append(watcher)

    def judge(self, log_filter: LogFilter, entries: Sequence[Unjudged]) -> None:
        """Judge entries apart from the loop, as a thread does."""
        [said] = verdicts(entries, [log_filter])
        offsets = [each.offset for each in entries]
        self.core.take_verdicts(log_filter, self.core.generation, zip(offsets, said, strict=True))

    @precondition(lambda self: self.watchers)
    @rule(index=INDEX)
    def stop_at_head(self, index: int) -> None:
        watcher = self.watchers[index % len(self.watchers)]
        if not watcher.live and watcher.until is None:
            self.core.leave(watcher)
            self.watchers.remove(watcher)
            fresh = Watcher(log_filter=watcher.filter, asked=watcher.asked)
            if watcher.asked.epoch != self.core.epoch:
                self.core.drop_filter(watcher.filter)
            else:
                self.core.join(fresh, watcher.asked.offset)
                fresh.until = self.core.flushed
                self.watchers.append(fresh)

    @precondition(lambda self: self.watchers)
    @rule(index=INDEX)
    def leave(self, index: int) -> None:
        watcher = self.watchers.pop(index % len(self.watchers))
        self.core.leave(watcher)
        self.core.drop_filter(watcher.filter)

    @precondition(lambda self: self.watchers)
    @rule(index=INDEX, size=st.integers(1, 8))
    def step(self, index: int, size: int) -> None:
        self.advance(self.watchers[index % len(self.watchers)], size)

    def advance(self, watcher: Watcher, size: int) -> bool:
        """Step a watcher once; False if it waits or is done."""
        if watcher.done or watcher.live or watcher in self.core.ahead:
            return False
        if watcher.parts:
            watcher.take(self.core.take_page(watcher, watcher.parts.pop(0)))
            return True
        step = self.core.next(watcher, self.clock)
        if isinstance(step, bytes):
            watcher.take(step)
        elif step is Step.FETCH:
            place = self.core.position_of(watcher)
            if place.epoch != self.log.epoch:
                return False  # the coordinator refuses; it waits for the feed
            through, asked = self.core.page_through(watcher), self.core.page_filter(watcher)
            page = self.log.page(place.offset, through, asked, watcher.filter, size)
            assert page.next_after > place.offset
            # One entry has some 20 bytes.
            watcher.parts = list(page.parts(50))
        elif step is Step.JUDGE:
            self.judge(watcher.filter, self.core.to_judge(watcher))
        elif step is Step.DONE:
            watcher.done = True
            self.core.leave(watcher)
            return False
        else:
            return False
        return True

    @rule(full=st.sets(st.integers(0, 5)))
    def flush(self, full: set[int]) -> None:
        self.flush_with(full=full)

    def flush_with(self, *, full: set[int]) -> None:
        for cohort, payload in self.core.flush():
            framed = cohort.framed(payload) if payload else b""
            for number, watcher in enumerate(list(cohort.members)):
                watcher.received += payload
                watcher.coded += framed
                if number in full:
                    self.core.fall_behind(watcher)
        self.core.woken.clear()

    @rule()
    def evict(self) -> None:
        self.core.evict_oldest()

    # What must hold

    @invariant()
    def valid(self) -> None:
        if hasattr(self, "core"):
            self.core.validate()

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        if self.core.end is None:
            self.reconnect(5)
            self.deliver(10_000)
            self.flush_with(full=set())
        for watcher in self.watchers:
            while self.advance(watcher, 7):
                self.core.validate()
            assert watcher.live or watcher.done or watcher in self.core.ahead
            self.check(watcher)

    def check(self, watcher: Watcher) -> None:
        """Everything from where it asked to start: there, in order, once, or in a gap."""
        watcher.check_coded()
        place = watcher.asked
        for event in parse(bytes(watcher.received)):
            if event.name == "gap":
                self.check_gap(watcher, event, place)
            else:
                assert event.name == "log"
                assert event.epoch == place.epoch == event.data["epoch"]
                assert event.offset == event.data["offset"]
                assert event.offset > place.offset
                self.check_passed_over(watcher, place, event.offset - 1)
                assert self.logs[event.epoch].passes(event.offset, watcher.filter)
            place = Position(event.epoch, event.offset)
        if watcher.until is None:
            assert place.epoch == self.core.epoch
            self.check_passed_over(watcher, place, self.core.flushed)
        elif place.epoch == self.core.epoch:
            self.check_passed_over(watcher, place, watcher.until)

    def check_passed_over(self, watcher: Watcher, place: Position, upto: int) -> None:
        """What was neither sent nor told: only what the filter dropped, or cannot be known."""
        log = self.logs[place.epoch]
        for offset in range(place.offset + 1, upto + 1):
            passes = log.passes(offset, watcher.filter)
            assert not passes, f"{offset} of {log} missing"

    def check_gap(self, watcher: Watcher, event: Event, place: Position) -> None:
        reason = event.data["reason"]
        start = Position.parse(event.data["from"])
        if reason == "epoch_changed":
            assert event.epoch != start.epoch == place.epoch
            self.check_passed_over(watcher, place, start.offset - 1)
            return
        end = Position.parse(event.data["to"])
        assert reason in ("dropped", "missing")
        assert start.epoch == place.epoch
        self.check_passed_over(watcher, place, start.offset - 1)
        assert end == Position(event.epoch, event.offset)
        log = self.logs[place.epoch]
        gone = [n for n in range(start.offset, end.offset + 1) if not log.kept(n)]
        assert len(gone) == end.offset - start.offset + 1, "a gap told of entries that exist"


CoreMachine.TestCase.settings = hypothesis_settings(
    hypothesis_settings.get_profile("often"), stateful_step_count=60
)
test_core = CoreMachine.TestCase


def core_with(entries: int) -> FeedCore[Watcher]:
    core: FeedCore[Watcher] = FeedCore(history_bytes=1 << 20, slice_bytes=1 << 16)
    core.start(Start("e", 0, 1, entries, "TRAINING"))
    core.append([LogRecord(n, 2, b"{}") for n in range(1, entries + 1)], 0.0)
    for _ in core.flush():
        pass
    return core


def test_a_log_that_got_shorter_under_its_epoch_is_told() -> None:
    core = core_with(10)
    watcher = Watcher(log_filter=LogFilter(), asked=Position("e", 10))
    core.join(watcher, 10)
    assert core.next(watcher, 0.0) is Step.LIVE

    core.start(Start("e", 3, 1, 6, "TRAINING"))
    assert core.woken == [watcher]
    assert core.anomalies == ["rewound"]
    step = core.next(watcher, 0.0)
    assert isinstance(step, bytes)
    (gap,) = parse(step)
    assert gap.data == {"from": "e:11", "to": None, "reason": "log_rewound"}
    assert gap.id == "e:6"


def test_what_a_page_has_behind_the_history_s_begin_is_not_a_hole_once_that_moves_on() -> None:
    core = core_with(6)
    core.history.evict(0, 3)
    watcher = Watcher(log_filter=LogFilter(), asked=Position("e", 0))
    core.join(watcher, 0)
    # Read at its tail, a page may reach behind what the history begins with.
    records = [LogRecord(n, 2, b"{}") for n in range(1, 7)]
    first, second, third = LogPage("e", records, 6, 1, 6).parts(4)
    received = core.take_page(watcher, first) + core.take_page(watcher, second)
    assert watcher.offset == 3
    core.history.evict(0, 6)
    received += core.take_page(watcher, third)
    assert [(each.name, each.offset) for each in parse(received)] == [
        ("log", 1),
        ("log", 2),
        ("log", 3),
    ]
    assert core.next(watcher, 0.0) is Step.FETCH


def test_a_page_without_a_filter_that_does_not_tell_all_that_is_missing_hides_nothing() -> None:
    core = core_with(9)
    core.history.evict(0, 9)
    watcher = Watcher(log_filter=LogFilter(), asked=Position("e", 0))
    core.join(watcher, 0)
    records = [LogRecord(n, 2, b"{}") for n in (1, 6)]
    page = LogPage("e", records, 9, 1, 9, missing=[(3, 3), (5, 5), (8, 8)])
    told = parse(core.take_page(watcher, page))
    assert [(each.name, each.data.get("from"), each.id) for each in told] == [
        ("log", None, "e:1"),
        ("gap", "e:2", "e:5"),
        ("log", None, "e:6"),
        ("gap", "e:7", "e:9"),
    ]


def test_a_new_cohort_was_not_silent_since_the_clock_began() -> None:
    core = core_with(1)
    watcher = Watcher(log_filter=LogFilter(), asked=Position("e", 1))
    core.join(watcher, 1)
    assert core.next(watcher, 5000.0) is Step.LIVE
    (cohort,) = core.cohorts.values()
    assert (cohort.announced_at, cohort.written_at) == (5000.0, 5000.0)


def test_an_end_before_the_last_entry_is_no_end() -> None:
    core = core_with(3)
    assert not core.finish(End("COMPLETED", 4))
    assert core.end is None
    assert core.finish(End("COMPLETED", 3))


@pytest.mark.parametrize(("level", "expected"), [(0, 7), (3, 0)])
def test_a_tail_is_counted_in_entries_that_pass(level: int, expected: int) -> None:
    assert core_with(10).find_tail(3, LogFilter(min_level=level)) == expected
