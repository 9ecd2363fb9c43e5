"""The jobs of one selection, and what has changed of them for those who watch it."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.hub.selection import event_frames
from app.hub.selection.newest import BEGINNING, END, Age, Newest, age_of
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

    It tells of the newest `most` jobs that match, and `follow` of these, the
    newest, are followed. All times are in seconds since 1970.
    """

    #: Events about jobs that have left which are kept for those who are behind.
    GONE = 10_000
    #: Times to leave that are kept beside two for each job that matches.
    LEAVING = 1_000

    def __init__(
        self, selection: Selection, *, record: TenantRecord, follow: int, most: int, now: float
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
        self._newest = Newest(most)
        #: The oldest job that is told of; BEGINNING if none is left out.
        self.edge: Age = BEGINNING
        #: The number of the newest change by which jobs were left out, or came back.
        self.moved = 0
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
            self._enter(job, change.version)
        elif job_id in self.matching:
            self._leave(job_id, change.version, "deleted" if job is None else "left")

    def _enter(self, job: JobState, version: int) -> None:
        before = self.matching.get(job.job_id)
        told = before is not None and self.tells_of(before)
        if before is None or age_of(before) != age_of(job):
            self._members_changed = True
            if before is not None:
                self._newest.remove(age_of(before))
            self._newest.add(age_of(job))
        self.matching[job.job_id] = job
        self._leave_later(job)
        if age_of(job) >= self._newest.edge:
            self._note(job.job_id, version, job.event)
        elif told:
            self._note_gone(job.job_id, version, "limit")
        self._move_edge(version, besides=job.job_id)

    def _move_edge(self, version: int, *, besides: str) -> None:
        """Note the jobs that come in at the edge, and those that go out."""
        before, self.edge = self.edge, self._newest.edge
        for job_id in self._newest.between(before, self.edge):
            if job_id != besides:
                self._note_gone(job_id, version, "limit")
        for job_id in self._newest.between(self.edge, before):
            if job_id != besides:
                self._note(job_id, version, self.matching[job_id].event)
        if self.edge != before:
            self.moved = self.number

    def _leave_later(self, job: JobState) -> None:
        """Note when a job leaves that has ended."""
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
        job = self.matching.pop(job_id)
        self._newest.remove(age_of(job))
        self._members_changed = True
        if self.tells_of(job):
            self._note_gone(job_id, version, reason)
        self._move_edge(version, besides=job_id)

    def _note_gone(self, job_id: str, version: int, reason: str) -> None:
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
            self.matching[job.job_id] = job
            self._leave_later(job)
        self._newest.replace([age_of(job) for job in self.matching.values()])
        self.edge = self._newest.edge
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
        self.followed = dict.fromkeys(self._newest.last(self._follow))

    # What is sent

    def tells_of(self, job: JobState) -> bool:
        """Whether a job that matches is not left out since there are too many newer ones."""
        return age_of(job) >= self.edge

    @property
    def leaves_out(self) -> bool:
        """Whether more jobs match than are told of."""
        return self.edge != BEGINNING

    @property
    def over_limit(self) -> bool:
        """Whether more jobs match than are followed."""
        return len(self.matching) > self._follow

    def limit_event(self) -> bytes:
        """Return the event that tells how many jobs match, are told of, and are followed."""
        told = len(self._newest.between(self.edge, END))
        return event_frames.limit(
            matching=len(self.matching), states=told, followed=len(self.followed)
        )

    def state(self) -> list[bytes]:
        """Return the events of the whole state, the newest job last."""
        return [self.matching[job_id].event for job_id in self._newest.between(self.edge, END)]

    def missing(self) -> list[bytes]:
        """Return an event for each job that was named and is not told of."""
        events = []
        for job_id in sorted(self.selection.job_ids):
            job = self.matching.get(job_id)
            if job is None:
                known = self.record.get(job_id) is not None
                events.append(event_frames.job_gone(job_id, "left" if known else "unknown"))
            elif not self.tells_of(job):
                events.append(event_frames.job_gone(job_id, "limit"))
        return events

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
        it. The record must know all deletions behind the version, and no job
        may have been left out at any time.
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
        assert self.edge == self._newest.edge
        ages = sorted(age_of(job) for job in self.matching.values())
        assert self._newest.between(BEGINNING, END) == [job_id for _, job_id in ages]
        assert all(self.tells_of(self.matching[job_id]) for job_id in self.followed)
        for job_id, job in self.matching.items():
            assert self.record.get(job_id) == job
            assert self.selection.matches(job, self.looked)
