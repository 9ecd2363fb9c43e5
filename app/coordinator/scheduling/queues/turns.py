"""One walk over the queued jobs, in the order in which they are looked at."""

from bisect import bisect_right
from collections.abc import Callable
from enum import IntEnum
from heapq import heappop, heappush
from typing import NamedTuple

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import Account
from app.coordinator.scheduling.queues.candidates import Alike, Candidates, Front, Lane, lane_of
from app.coordinator.scheduling.queues.waiting import Place


class Turn(NamedTuple):
    """A job that is looked at."""

    job: JobRecord
    alike: Alike
    lane: Lane
    front: Front
    place: Place
    #: It is looked at though one that it is alike was found to wait.
    follows: bool = False


class _Level(IntEnum):
    """What an entry is the first of."""

    #: Of a queue that is not entered yet, nor is any queue of the lane behind it.
    QUEUE = 0
    #: Of an account that is not entered yet, nor is any account of the queue behind it.
    ACCOUNT = 1
    JOB = 2


class _Entry(NamedTuple):
    """What comes next of an account, of a queue, or of a lane."""

    front: Front
    lane: Lane
    level: _Level
    follows: bool = False


class Turns:
    """Goes from job to job. Of those that are alike, the next is looked at once the one before it
    does not wait any more, or where that is asked for.

    A lane's next queue, and a queue's next account, are entered when the one before them has
    its turn: a walk costs what it looks at, however many queues there are.
    """

    def __init__(
        self,
        candidates: Candidates,
        *,
        front: Callable[[Account, Place], Front] | None = None,
        queue_name: str | None = None,
    ) -> None:
        """`front` says when it is a job's turn, unless that is as things are; with `queue_name`,
        only the accounts of that queue have turns."""
        self._candidates = candidates
        self._front = front or candidates.front
        self._entries: list[_Entry] = []
        self._entered_queues: set[tuple[str, Lane]] = set()
        self._entered: set[tuple[Account, Lane]] = set()
        self._closed_lanes: set[Lane] = set()
        self._closed_queues: set[tuple[str, Lane]] = set()
        self._closed_tenants: set[tuple[str, Lane]] = set()
        self._closed_accounts: set[tuple[Account, Lane]] = set()
        #: Lanes that were closed though a job of theirs had its turn.
        self.unseen: set[Lane] = set()
        self._last: Turn | None = None
        for lane in candidates.lanes_with(gpus_only=False):
            if queue_name is None:
                self._enter_queue(lane, None)
            else:
                self._enter_account(queue_name, lane, None)

    def next(self) -> Turn | None:
        """The next job; None at the end."""
        if self._last is not None:
            self._advance(self._last)
            self._last = None
        while self._entries:
            front, lane, level, follows = heappop(self._entries)
            if lane in self._closed_lanes:
                self.unseen.add(lane)
                continue
            if not self._enter(front, lane, level):
                continue
            account = front.account
            job = self._candidates.job(front.job_id)
            place = self._candidates.place_of(job)
            now = self._front(account, place)
            if now > front:
                # Its tenant was given something meanwhile: others may come first.
                heappush(self._entries, _Entry(now, lane, _Level.JOB, follows))
                continue
            self._last = Turn(job, self._candidates.alike_of(job), lane, front, place, follows)
            return self._last
        return None

    def _enter(self, front: Front, lane: Lane, level: _Level) -> bool:
        """Enter what comes behind an entry; return whether the entry itself has its turn."""
        account = front.account
        queue_name, tenant_id = account
        if level is _Level.QUEUE:
            self._entered_queues.add((queue_name, lane))
            self._enter_queue(lane, front)
        if (queue_name, lane) in self._closed_queues:
            return False
        if level is not _Level.JOB:
            self._entered.add((account, lane))
            self._enter_account(queue_name, lane, front)
        return (tenant_id, lane) not in self._closed_tenants and (
            account,
            lane,
        ) not in self._closed_accounts

    def look_at_next_of_alike(self, turn: Turn) -> None:
        """Look at the next of those that are alike, too, though this one waits."""
        places = self._candidates.places(turn.alike)
        at = bisect_right(places, turn.place)
        if at < len(places):
            front = self._front(turn.alike.account, places[at])
            heappush(self._entries, _Entry(front, turn.lane, _Level.JOB, True))

    def close_lane(self, lane: Lane) -> None:
        """Look at no more jobs of a lane."""
        self._closed_lanes.add(lane)

    def close_queue(self, queue_name: str, lane: Lane) -> None:
        """Look at no more jobs of a queue's lane."""
        self._closed_queues.add((queue_name, lane))

    def close_tenant(self, tenant_id: str, lane: Lane) -> None:
        """Look at no more jobs of a tenant's lane, whatever their queue."""
        self._closed_tenants.add((tenant_id, lane))

    def close_account(self, account: Account, lane: Lane) -> None:
        """Look at no more jobs of an account's lane."""
        self._closed_accounts.add((account, lane))

    def of_newcomer(self, job: JobRecord) -> Turn:
        """The turn that a job would have that is not in the queue."""
        alike, place = self._candidates.alike_of(job), self._candidates.place_of(job)
        front = self._candidates.front(alike.account, place)
        return Turn(job, alike, lane_of(job.resource_request), front, place)

    def _advance(self, turn: Turn) -> None:
        if turn.follows:
            return
        account, lane = turn.alike.account, turn.lane
        job = self._candidates.next_head(account, lane, turn.place)
        if job is not None:
            place = self._candidates.place_of(job)
            heappush(self._entries, _Entry(self._front(account, place), lane, _Level.JOB))

    def _enter_queue(self, lane: Lane, behind: Front | None) -> None:
        """Enter the lane's next queue. What is not entered stays where it was, or moves back."""
        front = self._candidates.next_queue(lane, behind)
        while front is not None and (front.account.queue_name, lane) in self._entered_queues:
            front = self._candidates.next_queue(lane, front)
        if front is not None:
            heappush(self._entries, _Entry(front, lane, _Level.QUEUE))

    def _enter_account(self, queue_name: str, lane: Lane, behind: Front | None) -> None:
        front = self._candidates.next_front(queue_name, lane, behind)
        while front is not None and (front.account, lane) in self._entered:
            front = self._candidates.next_front(queue_name, lane, front)
        if front is not None:
            heappush(self._entries, _Entry(front, lane, _Level.ACCOUNT))
