"""The jobs of one selection, and what has changed of them for those who watch it."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.hub.selection import event_frames
from app.hub.selection.record import Taken, TenantRecord
from app.hub.selection.selection import Selection
from app.hub.selection.states import JobChange, JobState


@dataclass(frozen=True, slots=True)
class ViewChange:
    """The newest event about one job, and the place in the record that it stands for."""

    #: Grows with every change of the view.
    number: int
    version: int
    #: Up to when jobs were looked at that ended too long ago, in seconds since 1970.
    looked: float
    event: bytes
    gone: bool


class SelectionView:
    """A selection over a tenant's record, kept up to date. Shared by all who watch it.

    `follow` is how many jobs are followed at most: the newest. All times are in
    seconds since 1970.
    """

    #: Events about jobs that have left which are kept for those who are behind.
    GONE = 10_000
    #: Times to leave that are kept beside two for each job that matches.
    LEAVING = 1_000

    def __init__(
        self, selection: Selection, *, record: TenantRecord, follow: int, now: float
    ) -> None:
        self.selection = selection
        self.key = (selection, follow)
        self.record = record
        self._follow = follow
        #: How often all that was known before became void.
        self.generation = 0
        #: The number of the newest change, and of the newest one that is not kept any more.
        self.number = 0
        self.dropped = 0
        self.matching: dict[str, JobState] = {}
        #: The newest jobs that match, at most as many as are followed, the newest first.
        self.followed: dict[str, None] = {}
        self.looked = now
        self._changes: dict[str, ViewChange] = {}
        self._gone = 0
        #: When jobs that have ended leave.
        self._leaving: list[tuple[float, str]] = []
        self._members_changed = False
        self._rebuild(now)

    @property
    def version(self) -> int:
        """The version of the record that the view shows."""
        return self.record.version

    # What changes

    def take(self, taken: Taken, now: float) -> bool:
        """Take what has changed of the record; whether anything has changed here."""
        if taken.reset:
            self._rebuild(now)
            return True
        before = self.number
        for change in taken.changes:
            self._take(change, now)
        for job_id in taken.forgotten:
            if job_id in self.matching:
                self._leave(job_id, self.version, "left")
        self._settle()
        return self.number != before

    def look(self, now: float) -> bool:
        """Let jobs leave that ended too long ago by now; whether any did."""
        before = self.number
        self.looked = max(self.looked, now)
        earliest = self.selection.earliest_end(now)
        while earliest is not None and self._leaving and self._leaving[0][0] <= earliest:
            _, job_id = heapq.heappop(self._leaving)
            job = self.matching.get(job_id)
            if job is not None and not self.selection.matches(job, now):
                self._leave(job_id, self.version, "left")
        self._settle()
        return self.number != before

    def _take(self, change: JobChange, now: float) -> None:
        job, job_id = change.state, change.job_id
        if job is not None and self.selection.matches(job, now):
            self._enter(job)
            self._note(job_id, change.version, job.event)
        elif job_id in self.matching:
            self._leave(job_id, change.version, "deleted" if job is None else "left")

    def _enter(self, job: JobState) -> None:
        self._members_changed = self._members_changed or job.job_id not in self.matching
        self.matching[job.job_id] = job
        if job.ended_at is not None and self.selection.ended_within is not None:
            heapq.heappush(self._leaving, (job.ended_at, job.job_id))
            # Those of jobs that left otherwise stay: not more of them than of others.
            if len(self._leaving) > self.LEAVING + 2 * len(self.matching):
                self._leaving = [
                    (each.ended_at, each.job_id)
                    for each in self.matching.values()
                    if each.ended_at is not None
                ]
                heapq.heapify(self._leaving)

    def _leave(self, job_id: str, version: int, reason: str) -> None:
        del self.matching[job_id]
        self._members_changed = True
        self._note(job_id, version, event_frames.job_gone(job_id, reason), gone=True)

    def _note(self, key: str, version: int, event: bytes, *, gone: bool = False) -> None:
        before = self._changes.pop(key, None)
        if before is not None and before.gone:
            self._gone -= 1
        self.number += 1
        self._changes[key] = ViewChange(self.number, version, self.looked, event, gone)
        if gone:
            self._gone += 1
            if self._gone > self.GONE:
                self._drop_gone()

    def _drop_gone(self) -> None:
        """Keep the newer half of the events about jobs that have left."""
        old = [key for key, change in self._changes.items() if change.gone][: self.GONE // 2]
        for key in old:
            self.dropped = self._changes.pop(key).number
        self._gone -= len(old)

    def _rebuild(self, now: float) -> None:
        self.generation += 1
        self.looked = now
        self.number += 1
        self.dropped = self.number
        self._changes.clear()
        self._gone = 0
        self._leaving.clear()
        self.matching.clear()
        self._members_changed = True
        for job in self._matching_now(now):
            self._enter(job)
        self._settle()

    def _matching_now(self, now: float) -> Iterator[JobState]:
        record, selection = self.record, self.selection
        named: Iterable[JobState | None] = (record.get(each) for each in selection.job_ids)
        jobs = named if selection.job_ids else (change.state for change in record)
        return (job for job in jobs if job is not None and selection.matches(job, now))

    def _settle(self) -> None:
        """Choose the jobs that are followed, if others match now."""
        if not self._members_changed:
            return
        self._members_changed = False
        newest = heapq.nlargest(
            self._follow, self.matching.values(), key=lambda job: (job.created_at, job.job_id)
        )
        self.followed = dict.fromkeys(job.job_id for job in newest)

    # What is sent

    @property
    def over_limit(self) -> bool:
        """Whether more jobs match than are followed."""
        return len(self.matching) > self._follow

    def limit_event(self) -> bytes:
        """Return the event that tells how many jobs match, and how many are followed."""
        return event_frames.limit(matching=len(self.matching), followed=len(self.followed))

    def state(self) -> list[bytes]:
        """Return the events of the whole state, the newest job last."""
        jobs = sorted(self.matching.values(), key=lambda job: (job.created_at, job.job_id))
        return [job.event for job in jobs]

    def missing(self) -> list[bytes]:
        """Return an event for each job that was named and is not there."""
        absent = sorted(self.selection.job_ids - self.matching.keys())
        return [
            event_frames.job_gone(job_id, "left" if self.record.get(job_id) else "unknown")
            for job_id in absent
        ]

    def changes_since(self, number: int) -> list[ViewChange]:
        """Return the changes behind a number, oldest first; it must not be below `dropped`."""
        found = []
        for change in reversed(self._changes.values()):
            if change.number <= number:
                break
            found.append(change)
        found.reverse()
        return found

    def changes_of_record(self, version: int, looked: float, now: float) -> list[bytes]:
        """Return what has changed for a client that has seen everything up to a version.

        Jobs that left since `looked` since they ended too long ago are among
        it. The record must know all deletions behind the version.
        """
        events = []
        for change in self.record.changes_since(version):
            job = change.state
            if job is not None and change.job_id in self.matching:
                events.append(job.event)
            else:
                reason = "deleted" if job is None else "left"
                events.append(event_frames.job_gone(change.job_id, reason))
        begin, end = self.selection.earliest_end(looked), self.selection.earliest_end(now)
        if begin is not None and end is not None and begin < end:
            events += [
                event_frames.job_gone(change.job_id, "left")
                for change in self.record
                if change.version <= version
                and change.state is not None
                and change.state.ended_at is not None
                and begin < change.state.ended_at <= end
                and change.job_id not in self.matching
            ]
        return events

    def validate(self) -> None:
        """Check what must always hold; for tests."""
        numbers = [change.number for change in self._changes.values()]
        assert numbers == sorted(numbers)
        assert self._gone == sum(change.gone for change in self._changes.values())
        assert self.followed.keys() <= self.matching.keys()
        for job_id, job in self.matching.items():
            assert self.record.get(job_id) == job
            assert self.selection.matches(job, self.looked)
