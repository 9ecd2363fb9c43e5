"""Entries on their way into the log, which refer to others that have no offset yet either."""

from collections.abc import Sequence
from dataclasses import dataclass

from generated.mindcoordinator.v1.watch_pb2 import LogEntry


@dataclass(slots=True, eq=False)
class NewEntry:
    """An entry, and which ones before it in the same log it belongs to."""

    entry: LogEntry
    #: The first line of the traceback that it is a line of; may be itself.
    block: "NewEntry | None" = None
    #: The first piece of the line that it is a piece of.
    continues: "NewEntry | None" = None


def numbered(entries: Sequence[NewEntry], *, after: int) -> list[LogEntry]:
    """The entries with the offsets that they get behind `after`, and with those they refer to."""
    for offset, new in enumerate(entries, after + 1):
        new.entry.offset = offset
        if new.block is not None:
            new.entry.fields["block"] = str(new.block.entry.offset)
        if new.continues is not None:
            new.entry.fields["continues"] = str(new.continues.entry.offset)
    return [new.entry for new in entries]
