"""The order in which those that wait have their turns, if each holds what it asks for from its turn
on: in a fair queue, the turn of a tenant's next job depends on it."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import add, attrgetter
from typing import Final

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import Account
from app.coordinator.scheduling.queues.candidates import Candidates, Front, lane_of
from app.coordinator.scheduling.queues.turns import Turn, Turns
from app.coordinator.scheduling.queues.waiting import Place

#: Jobs of a fair queue whose positions are told one by one; behind them, priority and age count.
MOST_FAIR: Final = 256


class Line:
    """One walk. A step costs the logarithm of the number of those that wait."""

    def __init__(
        self,
        candidates: Candidates,
        promised: Iterable[JobRecord],
        *,
        queue_name: str | None = None,
    ) -> None:
        """`promised` are the QUEUED jobs that are promised a place. `queue_name` is a queue that
        has an order of its own, if only its jobs are walked."""
        self._candidates = candidates
        self._promised = sorted(
            (
                self._turn_of(job)
                for job in promised
                if queue_name is None or job.queue_name == queue_name
            ),
            key=attrgetter("front"),
        )
        self._more: dict[Account, tuple[float, float, float]] = {}
        self._turns = Turns(candidates, front=self._front, queue_name=queue_name)

    def __iter__(self) -> Iterator[Turn]:
        """The turns of all, of those that are alike, too. Nothing may change meanwhile."""
        promised = deque(self._promised)
        while (turn := self._turns.next()) is not None:
            while promised and promised[0].front < turn.front:
                yield promised.popleft()
            account = turn.alike.account
            if self._candidates.is_fair(account):
                held = self._candidates.shares_of(turn.alike)
                before = self._more.get(account, (0.0, 0.0, 0.0))
                self._more[account] = _sum(before, held)
            self._turns.look_at_next_of_alike(turn)
            yield turn
        yield from promised

    def _turn_of(self, job: JobRecord) -> Turn:
        alike, place = self._candidates.alike_of(job), self._candidates.place_of(job)
        front = self._candidates.front_of(job)
        return Turn(job, alike, lane_of(job.resource_request), front, place)

    def _front(self, account: Account, place: Place) -> Front:
        front = self._candidates.front(account, place)
        more = self._more.get(account)
        return front._replace(used=_sum(front.used, more)) if more else front


class FairPositions:
    """The positions of the jobs of a fair queue: of the first MOST_FAIR by their turns, of others
    by priority and age, behind those."""

    def __init__(
        self, candidates: Candidates, promised: Iterable[JobRecord], queue_name: str
    ) -> None:
        turns = list(islice(Line(candidates, promised, queue_name=queue_name), MOST_FAIR))
        self._first = {turn.job.job_id: number for number, turn in enumerate(turns, 1)}
        self._places = sorted(turn.place for turn in turns)

    def of(self, place: Place, *, rank: int) -> int:
        """Return the position of a job, from 1; `rank` counts those of its queue that come before
        it by priority and age."""
        if (position := self._first.get(place.job_id)) is not None:
            return position
        return len(self._places) + max(rank - bisect_left(self._places, place), 0) + 1


def _sum(
    one: tuple[float, float, float], other: tuple[float, float, float]
) -> tuple[float, float, float]:
    gpus, cpus, jobs = map(add, one, other)
    return gpus, cpus, jobs
