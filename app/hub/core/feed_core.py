"""What a feed knows and what each of its log watchers gets next.

Synchronous and without I/O: it takes what the upstream sent and what the
sockets took, and says what is to be sent. Drivers (`feed.py`,
`log_watcher.py`) own tasks, timers and sockets.

A watcher is a cursor. It is *live* when it has been given everything up to
`flushed`; then it gets what its cohort gets. Otherwise it is *behind* and
steps forward by itself: from the history, or from pages that the coordinator
gives where the history does not reach back to it. Joining is starting behind.

After a break the log may go on in another place. Where only the stream has a
hole, live watchers fall behind and fetch what is missing. Where the log
itself is another one, `generation` grows, and each watcher of an older
generation receives a `gap` before it continues.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic

from app.hub.core.cohorts import Cohort, Cohorts, cohort_key
from app.hub.core.cursors import C, Cursor, Step
from app.hub.core.history import History
from app.hub.core.holes import Holes
from app.hub.core.judging import ALL, Judging, Unjudged
from app.hub.core.pages import PageWriter
from app.hub.core.rebase import Rebase
from app.hub.upstream import End, LogPage, LogRecord, Position, Start
from app.log_filter import LogFilter


class FeedCore(Generic[C]):
    """History, cursors and cohorts of one job."""

    #: A page that ends within so many entries of the head is read without a
    #: filter: then its offsets show what is missing, whatever the level.
    NEAR = 5000
    #: Holes of the stream that are remembered.
    HOLES = 1000

    def __init__(self, *, history_bytes: int, slice_bytes: int) -> None:
        self.history = History()
        self.history_bytes = history_bytes
        #: How much is given to a watcher at once.
        self.slice_bytes = slice_bytes
        self.epoch = ""
        #: Everything up to here has been given to the live watchers.
        self.flushed = 0
        #: The oldest and the newest entry of the coordinator's log when the stream began.
        self.log_first = 0
        self.log_last = 0
        self.end: End | None = None
        self.cohorts: Cohorts[C] = Cohorts()
        self.behind: set[C] = set()
        self.ahead: set[C] = set()
        #: Watchers that waited and have to step now; the driver takes them out.
        self.woken: list[C] = []
        self._rebases: list[Rebase] = []
        self._tails: dict[tuple[int, LogFilter, int], tuple[int, int]] = {}
        #: Filters whose verdicts are kept, and by how many.
        self._filters: Counter[LogFilter] = Counter()
        self._holes = Holes(most=self.HOLES)
        #: Departures of the upstream from its contract; the driver takes them out.
        self.anomalies: list[str] = []

    # What the upstream sends

    @property
    def last(self) -> int:
        """The newest entry that this feed has."""
        return self.history.last

    @property
    def position(self) -> Position | None:
        """Behind which place the upstream is to go on; None before its first start."""
        return Position(self.epoch, self.last) if self.epoch else None

    @property
    def generation(self) -> int:
        """How often the log turned out to be another one."""
        return len(self._rebases)

    @property
    def unflushed(self) -> bool:
        """Whether there are entries that the live watchers have not been given."""
        return self.last > self.flushed

    def start(self, start: Start) -> None:
        """Take how a new upstream stream begins. Entries must have been flushed."""
        assert not self.unflushed
        self.log_first, self.log_last = start.first_offset, start.last_offset
        if not self.epoch:
            self.epoch = start.epoch
            self._begin(start.after_offset)
        elif start.epoch != self.epoch:
            self._change_log(start, "epoch_changed", 0)
        elif start.last_offset < self.last:
            # The same epoch, yet shorter than what was seen: what comes now has
            # offsets that were used before.
            self._note("rewound")
            self._change_log(start, "log_rewound", start.last_offset)
        elif start.after_offset > self.last:
            self.skip_to(start.after_offset)

    def append(self, records: Sequence[LogRecord], now: float) -> None:
        """Take entries. Repeated ones are dropped; behind a hole the history begins anew.

        `now` is when they arrived, in seconds of any steady clock.
        """
        self._tails.clear()
        history = self.history
        expected = history.last + 1
        begin = 0
        for place, record in enumerate(records):
            if record.offset != expected:
                history.extend(records[begin:place])
                begin = place
                if record.offset < expected:
                    self._note("repeated")
                    begin += 1
                    continue
                self._note("skipped")
                self.skip_to(record.offset - 1)
                expected = record.offset
            expected += 1
        history.extend(records[begin:])
        history.mark(now)
        history.evict(self.history_bytes, self.flushed)

    def finish(self, end: End) -> bool:
        """Take the end of the log; entries must have been flushed.

        False if entries of the log are missing: it is no end then.
        """
        assert not self.unflushed
        if end.last_offset != self.last:
            self._note("early_end")
            return False
        self.end = end
        self._all_behind()
        return True

    def skip_to(self, base: int) -> None:
        """Go on behind a hole of the stream: watchers fetch what is missing, and are told of
        what is not there.
        """
        self._holes.add(self.last, base)
        self._all_behind()
        self._begin(base)

    def evict_oldest(self) -> None:
        """Drop the part of the history that arrived first; entries that are not flushed stay."""
        self._tails.clear()
        self.history.evict_oldest(self.flushed)

    def _begin(self, base: int) -> None:
        self.history.clear(self.epoch, base)
        self.flushed = base
        self._tails.clear()

    def _change_log(self, start: Start, reason: str, shared: int) -> None:
        self._all_behind()
        self._rebases.append(Rebase(reason, Position(self.epoch, self.last), shared, start.epoch))
        self.epoch = start.epoch
        self._holes.clear()
        self._begin(start.after_offset)

    def _all_behind(self) -> None:
        for cohort in list(self.cohorts.values()):
            for cursor in list(cohort.members):
                self.fall_behind(cursor)
        self.behind |= self.ahead
        self.woken.extend(self.ahead)
        self.ahead.clear()

    def _note(self, kind: str) -> None:
        self.anomalies.append(kind)

    # What watchers get

    def find_tail(self, count: int, log_filter: LogFilter, upto: int | None = None) -> int | None:
        """Return the offset before the `count` newest entries that pass, up to `upto` or `flushed`.

        None if only the coordinator knows it, since the history does not reach
        back that far, or was not judged so far.
        """
        upto = self.flushed if upto is None else max(upto, self.history.base)
        key = (count, log_filter, upto)
        found = self._tails.get(key)
        if found is None:
            found = self._tails[key] = self.history.tail(upto, count, log_filter)
        offset, missing = found
        base = self.history.base
        if missing and (offset > base or base >= max(self.log_first, 1)):
            return None
        return offset

    def join(self, cursor: C, offset: int) -> None:
        """Let a watcher start behind `offset`."""
        cursor.offset = offset
        cursor.generation = self.generation
        cursor.live = False
        self.behind.add(cursor)

    def leave(self, cursor: C) -> None:
        """Forget a watcher."""
        if cursor.live:
            self.cohorts.remove(cursor)
        self.behind.discard(cursor)
        self.ahead.discard(cursor)

    def next(self, cursor: C, now: float) -> bytes | Step:
        """Step a watcher that is behind: what to send to it now, or what to do.

        What is returned as bytes counts as given. It may be empty where the
        filter let nothing through. `now` is in seconds of the driver's clock.
        """
        step = self.read(cursor, self.slice_bytes)
        if step is Step.AHEAD:
            self.behind.discard(cursor)
            self.ahead.add(cursor)
        elif step is Step.LIVE:
            self.behind.discard(cursor)
            self.cohorts.add(cursor, announced=self.flushed, now=now)
        return step

    def read(self, cursor: Cursor, most: int) -> bytes | Step:
        """Step a cursor whether it has joined or not, by `most` bytes or one entry.

        As `next`, but at the head it stays as it is. The caller learns from the
        feed when there is more.
        """
        if cursor.generation != self.generation:
            return self._rebases[cursor.generation].cross(cursor, head=self.flushed)
        goal = self.page_goal(cursor)
        if cursor.offset < goal:
            if cursor.offset < self.history.base:
                return Step.FETCH
            upto = self.history.cut(cursor.offset, goal, most)
            if cursor.judging is Judging.AT_ONCE:
                self.history.judge([cursor.filter], cursor.offset, upto)
            elif cursor.judging is Judging.APART and not self.history.judged(
                cursor.filter, cursor.offset, upto
            ):
                return Step.JUDGE
            chosen = self.history.select(cursor.offset, upto, cursor.filter)
            cursor.offset = upto
            return cursor.form.entries(chosen) if chosen else b""
        if self.end is not None and cursor.offset >= self.end.last_offset:
            return Step.DONE
        if cursor.until is not None and cursor.offset >= cursor.until:
            return Step.DONE
        return Step.AHEAD if cursor.offset > self.flushed else Step.LIVE

    def position_of(self, cursor: Cursor) -> Position:
        """Return the position up to which everything that passes the filter was delivered."""
        if cursor.generation != self.generation:
            return Position(self._rebases[cursor.generation].old_last.epoch, cursor.offset)
        return Position(self.epoch, self.flushed if cursor.live else cursor.offset)

    def page_goal(self, cursor: Cursor) -> int:
        """Return the offset at which a page for this watcher may end."""
        return self.flushed if cursor.until is None else min(cursor.until, self.flushed)

    def page_filter(self, cursor: Cursor) -> LogFilter:
        """Return the filter by which to read a page for this watcher; `ALL` shows holes."""
        near = self.page_goal(cursor) - cursor.offset <= self.NEAR
        return ALL if near or self.in_hole(cursor) else cursor.filter

    def page_through(self, cursor: Cursor) -> int:
        """Return the offset behind which a page for this watcher must not reach."""
        hole = self._holes.next(cursor.offset)
        if hole is None or self.page_filter(cursor).passes_all:
            return self.flushed
        return min(self.flushed, hole)

    def in_hole(self, cursor: Cursor) -> bool:
        """Whether the stream left out what comes next for a watcher: the log may have it."""
        return self._holes.next(cursor.offset) == cursor.offset

    def take_page(self, cursor: Cursor, page: LogPage) -> bytes:
        """Step a watcher by a page read behind its position; what to send to it.

        A page that is not of its log, or leads nowhere, leaves it where it is. So does a part of
        one whose part before was not taken whole: the history begins within that.
        """
        if cursor.generation != self.generation or page.epoch != self.epoch:
            return b""
        if cursor.offset < page.behind:
            return b""
        # From where the history begins, it is the better source: it may hold
        # what the coordinator has dropped since.
        wanted = min(self.history.base, self.page_goal(cursor))
        writer = PageWriter(cursor, epoch=self.epoch)
        events = writer.write(page, through=wanted)
        if writer.repeated:
            self._note("repeated")
        return events

    # What is judged apart

    def hold_filter(self, log_filter: LogFilter) -> None:
        """Keep what a filter says of the history until it is dropped as often."""
        self._filters[log_filter] += 1

    def drop_filter(self, log_filter: LogFilter) -> None:
        """Undo one `hold_filter`."""
        self._filters[log_filter] -= 1
        if not self._filters[log_filter]:
            del self._filters[log_filter]
            self._tails.clear()
            self.history.forget(log_filter)

    def to_judge(self, cursor: Cursor, most: int | None = None) -> Sequence[Unjudged]:
        """Return the entries that its filter has to judge before a cursor can step (`JUDGE`)."""
        most = self.slice_bytes if most is None else most
        upto = self.history.cut(cursor.offset, self.page_goal(cursor), most)
        return self.history.unjudged(cursor.filter, cursor.offset, upto)

    def newest_unjudged(self, log_filter: LogFilter, upto: int) -> Sequence[Unjudged]:
        """Return the newest entries up to `upto` that a filter has not judged, a slice of them."""
        return self.history.newest_unjudged(log_filter, upto, self.slice_bytes)

    def take_verdicts(
        self, log_filter: LogFilter, generation: int, said: Iterable[tuple[int, bool]]
    ) -> None:
        """Take what a filter said of entries, by offset, in that generation of the log."""
        if generation == self.generation and log_filter in self._filters:
            self._tails.clear()
            for offset, passed in said:
                self.history.take_verdict(log_filter, offset, passed=passed)

    def flush(self) -> Iterator[tuple[Cohort[C], bytes]]:
        """Yield what is new for the live watchers, slice by slice, cohort by cohort.

        The caller sends each payload to the cohort's members and calls
        `fall_behind` for those whose sockets are full. An empty payload means
        that the filter let nothing through. Members of cohorts that are not
        `served` fall behind here.
        """
        if self.unflushed:
            for cohort in list(self.cohorts.values()):
                if not cohort.served:
                    for cursor in list(cohort.members):
                        self.fall_behind(cursor)
        while self.unflushed:
            upto = self.history.cut(self.flushed, self.last, self.slice_bytes)
            after, self.flushed = self.flushed, upto
            cohorts = list(self.cohorts.values())
            if judging := self.cohorts.judging_at_once():
                self.history.judge(judging, after, upto)
            for cohort in cohorts:
                chosen = self.history.select(after, upto, cohort.filter)
                if chosen:
                    cohort.announced = upto
                yield cohort, cohort.form.entries(chosen) if chosen else b""
        self._tails.clear()
        self.history.evict(self.history_bytes, self.flushed)
        if self.ahead:
            reached = [cursor for cursor in self.ahead if cursor.offset <= self.flushed]
            self.ahead.difference_update(reached)
            self.behind.update(reached)
            self.woken.extend(reached)

    def fall_behind(self, cursor: C) -> None:
        """Make a live watcher step by itself, from what it has been given."""
        self.cohorts.remove(cursor)
        cursor.offset = self.flushed
        self.behind.add(cursor)
        self.woken.append(cursor)

    def validate(self) -> None:
        """Check what must always hold; for tests."""
        self.history.validate()
        assert self.history.base <= self.flushed <= self.last
        for key, cohort in self.cohorts.items():
            assert cohort.members
            for cursor in cohort.members:
                assert cursor.live
                assert (cursor.gzip and cursor.gzip.followed) is cohort.gzip
                assert cohort_key(cursor) == key
                assert cursor.generation == self.generation
                assert cursor not in self.behind
                assert cursor not in self.ahead
        assert not self.behind & self.ahead
        for cursor in self.behind | self.ahead:
            assert not cursor.live
            assert cursor.gzip is None or cursor.gzip.followed is None
        for cursor in self.ahead:
            assert cursor.offset > self.flushed
        if self.end is not None:
            assert self.end.last_offset == self.last
