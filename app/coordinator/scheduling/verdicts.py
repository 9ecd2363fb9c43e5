"""Why jobs wait, as the scheduler decided it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import Account
from app.coordinator.scheduling.queues.candidates import Alike, Lane
from app.coordinator.scheduling.queues.usage import Excess


class Reason(Enum):
    """The kinds of reasons. The values are those of the contract's WaitReason."""

    #: It waits for its `not_before`.
    NOT_BEFORE = 1
    #: What it asks for is held, and nobody ahead of it waits for the same.
    RESOURCES = 2
    #: What it asks for is held, and somebody ahead of it waits for the same.
    BEHIND = 3
    #: What it asks for is free, and kept for somebody ahead of it.
    RESERVED = 4
    #: A limit of its queue, of all tenants together.
    QUEUE_LIMIT = 5
    #: A limit of its tenant.
    TENANT_LIMIT = 6
    #: Only nodes that take no jobs have what it asks for: drained ones, and lost ones.
    DRAINED = 7
    #: The cluster does not have what it asks for.
    IMPOSSIBLE = 8
    #: Runs are being stopped to make room for it.
    PREEMPTING = 9


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a job was not placed."""

    job: JobRecord
    reason: Reason
    #: The first of those ahead that wait for the same.
    behind: JobRecord | None = None
    excess: Excess | None = None
    #: It was not looked at, since too many ahead of it wait.
    unseen: bool = False
    #: What is free is promised to `behind`, for which runs are being stopped.
    promised: bool = False


@dataclass(slots=True)
class Verdicts:
    """What one look at all that waits has found."""

    #: Of the first of the jobs that are alike.
    of_alike: dict[Alike, Verdict] = field(default_factory=dict)
    #: Of others that were looked at.
    of_job: dict[str, Verdict] = field(default_factory=dict)
    #: Of all in a lane of a queue, a tenant or an account whose limit is reached.
    of_queue: dict[tuple[str, Lane], Verdict] = field(default_factory=dict)
    of_account: dict[tuple[Account, Lane], Verdict] = field(default_factory=dict)
    of_tenant: dict[tuple[str, Lane], Verdict] = field(default_factory=dict)
    #: Whom the last job of a lane was found to wait behind, where not all were looked at.
    of_lane: dict[Lane, Verdict] = field(default_factory=dict)
    #: The same of any lane.
    last: Verdict | None = None
    #: Whether a newcomer would start at once, if one was looked at.
    newcomer_starts: bool = False

    def of(self, job: JobRecord, alike: Alike, lane: Lane) -> Verdict | None:
        """Why a queued job waits; None if it was not found to."""
        if (looked_at := self.of_job.get(job.job_id)) is not None:
            return looked_at
        own = self.of_alike.get(alike)
        if own is not None:
            if own.job.job_id == job.job_id or own.reason in _SHARED:
                return own
            reserved = own.reason is Reason.RESERVED
            return Verdict(job, Reason.RESERVED if reserved else Reason.BEHIND, behind=own.job)
        account = alike.account
        for known in (
            self.of_account.get((account, lane)),
            self.of_tenant.get((account.tenant_id, lane)),
            self.of_queue.get((account.queue_name, lane)),
        ):
            if known is not None:
                return known
        last = self.of_lane.get(lane, self.last)
        return Verdict(job, Reason.BEHIND, behind=last.job, unseen=True) if last else None


_SHARED: Mapping[Reason, None] = dict.fromkeys(
    (Reason.QUEUE_LIMIT, Reason.TENANT_LIMIT, Reason.DRAINED, Reason.IMPOSSIBLE)
)
