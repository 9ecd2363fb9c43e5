"""Where a waiting job stands, and how long it is expected to wait."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import QueueOrder
from app.coordinator.jobs.states import RUNNING
from app.coordinator.scheduling.estimates import Forecast, RunTimes, forecast
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.queues.line import FairPositions, Line
from app.coordinator.scheduling.queues.turns import Turns

#: Waiting jobs whose starts are planned to say how long they wait; it is estimated for others.
PLAYED: Final = 32
_SECOND: Final = 1_000_000


def position(table: JobTable, job: JobRecord, fair: dict[str, FairPositions]) -> int:
    """Return where a waiting job is in the order of its queue, from 1; `fair` keeps what was found
    out of fair queues."""
    place = table.waiting.place_of(job)
    rank = table.waiting.rank(place, queue_name=job.queue_name)
    if table.rules.queue(job.queue_name).order is not QueueOrder.FAIR:
        return rank + 1
    if (positions := fair.get(job.queue_name)) is None:
        positions = fair[job.queue_name] = FairPositions(
            table.candidates, table.promised.values(), job.queue_name
        )
    return positions.of(place, rank=rank)


class Planner:
    """Plans what waits as things are; changes nothing."""

    def __init__(
        self, table: JobTable, run_times: RunTimes, ran: Callable[[JobRecord], int]
    ) -> None:
        """`ran` says for how many microseconds a run has gone on."""
        self._table = table
        self._run_times = run_times
        self._ran = ran

    def first(self) -> Forecast:
        """Plan the first PLAYED of the waiting jobs. The others are not looked at."""
        return self._plan([turn.job for turn in islice(self._line(), PLAYED)])

    def _line(self) -> Line:
        return Line(self._table.candidates, self._table.promised.values())

    def wait_of_newcomer(self, job: JobRecord, known: Forecast) -> int:
        """Return the seconds until a job would start if it were submitted now."""
        candidates = self._table.candidates
        own = Turns(candidates).of_newcomer(job).front
        before = [turn.job for turn in islice(self._line(), PLAYED) if turn.front < own]
        if len(before) == PLAYED:
            rank = self._table.waiting.rank(self._table.waiting.place_of(job))
            return known.wait(job, rank=rank, now=self._table.now())
        return self._plan([*before, job]).waits[job.job_id]

    def _plan(self, waiting: Sequence[JobRecord]) -> Forecast:
        holding = self._table.holding.values()
        ran = {job.job_id: self._ran(job) / _SECOND for job in holding if job.status in RUNNING}
        return forecast(
            self._table.cluster,
            waiting,
            holding,
            self._run_times,
            self._table.now(),
            ran,
            rules=self._table.rules,
        )
