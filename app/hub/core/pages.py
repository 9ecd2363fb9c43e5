"""A page of a log as a watcher's events: entries that pass its filter, and what is missing."""

from app.hub.core import frames
from app.hub.core.cursors import Cursor
from app.hub.upstream import LogPage, Position


class PageWriter:
    """Moves a cursor over a page of its log, and writes the events for what it passes.

    Entries that the coordinator no longer has, or has lost, become gaps.
    `repeated` tells whether the page had entries behind which the cursor was.
    """

    def __init__(self, cursor: Cursor, *, epoch: str) -> None:
        self.repeated = False
        self._cursor = cursor
        self._epoch = epoch
        self._prefix = frames.log_prefix(epoch)
        self._events: list[bytes] = []
        #: Entries since the last gap, as frames.
        self._frames: list[bytes] = []

    def write(self, page: LogPage, *, through: int) -> bytes:
        """Step through a page up to the offset `through`, and return the events."""
        cursor = self._cursor
        self._gap(min(page.first_offset - 1, through), "dropped")
        dense, level = page.filter.passes_all, cursor.filter.min_level
        # Where every entry passes, the offsets show all that is missing, told or not.
        lost = [] if dense else [each for each in page.missing if each[1] > cursor.offset]
        for place, record in enumerate(page.records):
            if record.offset > through:
                break
            if record.offset <= cursor.offset:
                self.repeated = True
                continue
            while lost and lost[0][0] < record.offset:
                self._lose(lost.pop(0), upto=record.offset - 1)
            if dense:
                self._gap(record.offset - 1, "missing")
            if record.level >= level if page.verdicts is None else page.verdicts[place]:
                self._frames.append(frames.log_frame(self._prefix, record.offset, record.data))
            cursor.offset = record.offset
        looked_at = min(page.next_after, through)
        for each in lost:
            self._lose(each, upto=looked_at)
        if dense:
            self._gap(looked_at, "missing")
        else:
            # What is neither there nor missing does not pass.
            cursor.offset = max(cursor.offset, looked_at)
        self._flush()
        return b"".join(self._events)

    def _flush(self) -> None:
        if self._frames:
            self._events.append(self._cursor.form.entries(self._frames))
            self._frames = []

    def _lose(self, lost: tuple[int, int], *, upto: int) -> None:
        """Pass over a range of entries that the log has lost."""
        first, last = lost
        last = min(last, upto)
        if last >= first:
            self._cursor.offset = max(self._cursor.offset, first - 1)
            self._gap(last, "missing")

    def _gap(self, upto: int, reason: str) -> None:
        """Pass over everything up to an offset, which the client is told; nothing if it is past."""
        cursor = self._cursor
        if upto <= cursor.offset:
            return
        start = Position(self._epoch, cursor.offset + 1)
        cursor.offset = upto
        end = Position(self._epoch, upto)
        self._flush()
        self._events.append(cursor.form.gap(start=start, end=end, reason=reason, position=end))
