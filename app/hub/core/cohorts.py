"""The groups of watchers that share their bytes."""

from dataclasses import dataclass, field
from typing import Generic, TypeAlias

from app.hub.coding.gzip_stream import SharedPieces
from app.hub.core import frames
from app.hub.core.cursors import C, Cursor
from app.hub.core.forms import Form, FormName
from app.hub.core.judging import Judging
from app.log_filter import LogFilter

#: What the members of a cohort have in common: filter, form, and whether they take chunks and gzip.
CohortKey: TypeAlias = tuple[LogFilter, FormName, bool, bool]


def cohort_key(cursor: Cursor) -> CohortKey:
    """Return the key of the cohort that a watcher joins when it is live."""
    return cursor.filter, cursor.form.name, cursor.chunked, cursor.gzip is not None


@dataclass(slots=True)
class Cohort(Generic[C]):
    """Live watchers that get the same bytes.

    Or that step by themselves as soon as there is something new: those whose form
    remembers what it wrote, and those whose filter is judged apart.
    """

    filter: LogFilter
    judging: Judging
    form: Form
    chunked: bool
    #: What they get in gzip; None if they get everything as it is.
    gzip: SharedPieces | None
    #: The id of the last event that was written to all members.
    announced: int
    #: When the last event, and when anything at all, was written to all members.
    #: Kept by the driver, in seconds of its clock.
    announced_at: float
    written_at: float
    #: In order of arrival; a dict, since a set has no order and a list no quick removal.
    members: dict[C, None] = field(default_factory=dict)

    @property
    def served(self) -> bool:
        """Whether its members get the same bytes."""
        return self.form.shared and self.judging is not Judging.APART

    def framed(self, payload: bytes) -> bytes:
        """Return a payload, not empty, as each member is sent it: all of them have to be."""
        if self.gzip is not None:
            payload = self.gzip.take(payload)
        return frames.chunk(payload) if self.chunked else payload


class Cohorts(dict[CohortKey, Cohort[C]], Generic[C]):
    """All cohorts that have members."""

    def add(self, cursor: C, *, announced: int, now: float) -> None:
        """Make a watcher a member of its cohort: everything up to `announced` was given to it."""
        key = cohort_key(cursor)
        cohort = self.get(key)
        if cohort is None:
            cohort = self[key] = Cohort(
                filter=cursor.filter,
                judging=cursor.judging,
                form=cursor.form,
                chunked=cursor.chunked,
                gzip=None if cursor.gzip is None else SharedPieces(),
                announced=announced,
                announced_at=now,
                written_at=now,
            )
        cohort.members[cursor] = None
        if cohort.gzip is not None and cursor.gzip is not None:
            cursor.gzip.follow(cohort.gzip)
        cursor.live = True

    def remove(self, cursor: C) -> None:
        """Take a member out."""
        key = cohort_key(cursor)
        cohort = self[key]
        del cohort.members[cursor]
        if cursor.gzip is not None:
            cursor.gzip.part()
        if not cohort.members:
            del self[key]
        cursor.live = False

    def judging_at_once(self) -> set[LogFilter]:
        """Return the filters that judge on the loop."""
        return {each.filter for each in self.values() if each.judging is Judging.AT_ONCE}
