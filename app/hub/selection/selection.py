"""Which jobs a stream is about, and what of them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.hub.selection.states import ENDED, JobState
from app.log_filter import LogFilter

#: How long after its end a job is selected where nothing else is asked for, in seconds.
RECENT = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A live selection: each condition that is given must hold. Empty conditions always do."""

    job_ids: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()
    #: All of them.
    labels: frozenset[tuple[str, str]] = frozenset()
    user_ids: frozenset[str] = frozenset()
    #: Of the jobs that have ended, those that did so after this time (seconds since 1970).
    ended_after: float | None = None
    #: The same, as seconds before now.
    ended_within: float | None = None

    @classmethod
    def of(
        cls,
        *,
        job_ids: Iterable[str] = (),
        statuses: Iterable[str] = (),
        labels: Iterable[tuple[str, str]] = (),
        user_ids: Iterable[str] = (),
        ended_after: float | None = None,
        ended_within: float | None = None,
    ) -> "Selection":
        """Make a selection; without ids, statuses and times, jobs that ended long ago are out."""
        job_ids, statuses = frozenset(job_ids), frozenset(statuses)
        if not job_ids and not statuses and ended_after is None and ended_within is None:
            ended_within = RECENT
        return cls(
            job_ids=job_ids,
            statuses=statuses,
            labels=frozenset(labels),
            user_ids=frozenset(user_ids),
            ended_after=ended_after,
            ended_within=ended_within,
        )

    @property
    def only_named(self) -> bool:
        """Whether jobs are told by their ids alone."""
        return bool(self.job_ids) and self == Selection(job_ids=self.job_ids)

    def earliest_end(self, now: float) -> float | None:
        """Return the time after which jobs must have ended if they have; None if that is all one.

        `now` is in seconds since 1970.
        """
        if self.ended_within is None:
            return self.ended_after
        earliest = now - self.ended_within
        return earliest if self.ended_after is None else max(earliest, self.ended_after)

    def matches(self, job: JobState, now: float) -> bool:
        """Whether a job is selected at a time, in seconds since 1970."""
        if self.job_ids and job.job_id not in self.job_ids:
            return False
        if self.statuses and job.status not in self.statuses:
            return False
        if self.user_ids and job.user_id not in self.user_ids:
            return False
        if self.labels and not self.labels <= job.labels.items():
            return False
        if job.ended_at is None:
            return True
        earliest = self.earliest_end(now)
        return earliest is None or job.ended_at > earliest


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """What a stream over many jobs carries. Equal ones can share their bytes."""

    selection: Selection
    jobs: bool = True
    logs: bool = False
    metrics: bool = False
    nodes: bool = False
    queue: bool = False
    #: Which entries of the logs pass.
    filter: LogFilter = field(default_factory=LogFilter)
    #: Seconds between two snapshots of a job.
    interval: int = 5
    #: What was asked for, in one form for all ways to ask for it.
    text: str = ""

    @property
    def follows(self) -> bool:
        """Whether logs or metrics of the jobs are followed."""
        return self.logs or self.metrics

    @property
    def selects(self) -> bool:
        """Whether it is about jobs at all."""
        return self.jobs or self.follows

    @property
    def needs_states(self) -> bool:
        """Whether only a coordinator that tells the states of all jobs can serve it."""
        return self.nodes or self.queue or (self.selects and not self.selection.only_named)

    @property
    def digest(self) -> bytes:
        """Return what stands for it in cursors and tickets."""
        return hashlib.sha256(self.text.encode()).digest()


def includes_ended(selection: Selection) -> bool:
    """Whether jobs that have ended can be selected."""
    return not selection.statuses or bool(selection.statuses & ENDED)
