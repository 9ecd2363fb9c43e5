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


#: An entry on its way, or one that `plain_lines` has made: it refers to no other.
AnyEntry = NewEntry | bytes


def numbered(entries: Sequence[AnyEntry], *, after: int) -> list[LogEntry | bytes]:
    """The entries, those that refer to others with the offsets that these get behind `after`."""
    found: list[LogEntry | bytes] = []
    for offset, new in enumerate(entries, after + 1):
        if isinstance(new, bytes):
            found.append(new)
            continue
        new.entry.offset = offset
        if new.block is not None:
            new.entry.fields["block"] = str(new.block.entry.offset)
        if new.continues is not None:
            new.entry.fields["continues"] = str(new.continues.entry.offset)
        found.append(new.entry)
    return found
