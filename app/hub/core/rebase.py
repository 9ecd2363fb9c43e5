"""How a job's log became another one, and what that costs a watcher."""

from dataclasses import dataclass

from app.hub.core.cursors import Cursor
from app.hub.upstream import Position


@dataclass(frozen=True, slots=True)
class Rebase:
    """How one generation of the log followed on another."""

    reason: str
    #: The place that the old log had reached.
    old_last: Position
    #: The new log is the old one up to here.
    shared: int
    epoch: str

    def cross(self, cursor: Cursor, *, head: int) -> bytes:
        """Step a watcher into the next generation, and return what it missed by that.

        `head` is what the new log has reached.
        """
        missed_from = Position(self.old_last.epoch, max(cursor.offset, self.shared) + 1)
        cursor.offset = min(cursor.offset, self.shared)
        cursor.generation += 1
        if cursor.until is not None:
            # What it asked for is gone; it gets what there is now.
            cursor.until = head
        return cursor.form.gap(
            start=missed_from,
            end=self.old_last if missed_from.offset <= self.old_last.offset else None,
            reason=self.reason,
            position=Position(self.epoch, cursor.offset),
        )
