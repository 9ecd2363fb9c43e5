"""What the gateway sees of jobs, kept until it is written: bounded, the newest of a job wins."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self, TypeAlias

from app.schemas.jobs import JOB_STATUSES

JsonObject: TypeAlias = dict[str, Any]

#: By their numbers in the contract, which follow a job's life: of two states
#: at the same time, the one with the higher number is taken for the later.
STATUSES = ("UNSPECIFIED", *JOB_STATUSES)
_NUMBERS = {name: number for number, name in enumerate(STATUSES)}
#: States that end a job: from COMPLETED to PREEMPTED.
ENDS = range(10, 14)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Key(NamedTuple):
    """Which job. The tenant is the caller's or the feed's, never one that a message names."""

    tenant_id: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A job as the coordinator gave it.

    Of two copies the one with the higher `revision` is the newer; revision 0
    is of one that was put together from less than the whole job. `seen` is in
    seconds of the gateway's own clock. `job` is shared with whoever got the
    answer, and changed by nobody.
    """

    revision: int
    updated_at: datetime
    seen: float
    status: int
    job: JsonObject

    @classmethod
    def of(cls, job: JsonObject, *, seen: float) -> Self:
        """Take what orders it out of a job."""
        revision = job["revision"]
        return cls(
            revision=revision,
            updated_at=time_of(job.get("updated_at")) or EPOCH if revision else EPOCH,
            seen=seen,
            status=status_number(job["status"]),
            job=job,
        )

    @property
    def status_at(self) -> datetime:
        """Since when the status is known to hold, by the coordinator's clock."""
        if self.revision:
            return self.updated_at
        # It held at some time after all that it tells.
        told = (time_of(self.job.get(name)) for name in ("started_at", "ended_at"))
        return max((time for time in told if time is not None), default=EPOCH)

    @property
    def order(self) -> tuple[int, datetime, float]:
        """Compare copies of one job by this."""
        return (self.revision, self.updated_at, self.seen)


@dataclass(frozen=True, slots=True)
class Change:
    """A status that a job took on `at` a time of the coordinator's clock."""

    at: datetime
    status: int
    message: str

    @property
    def order(self) -> tuple[bool, datetime, int]:
        """Compare changes of one job by this: an end is the last, whatever the clock says."""
        return (self.status in ENDS, self.at, self.status)


@dataclass(slots=True)
class PendingUpdate:
    """The newest that waits to be written about one job."""

    copy: Copy | None = None
    change: Change | None = None
    #: There is no such job any more: nothing else counts.
    deleted: bool = False
    #: The same of a job that may never have been there: it is marked if it was seen.
    missing: bool = False

    def take(self, other: "PendingUpdate") -> None:
        """Take over what is newer in another one."""
        if self.deleted or other.deleted:
            self.copy, self.change, self.deleted = None, None, True
            return
        if self.missing or other.missing:
            self.copy, self.change, self.missing = None, None, True
            return
        if other.copy is not None and (self.copy is None or self.copy.order < other.copy.order):
            self.copy = other.copy
        if other.change is not None and (
            self.change is None or self.change.order < other.change.order
        ):
            self.change = other.change


class Buffer:
    """At most `limit` jobs, those heard of last. All of it is synchronous and O(1) per job."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._pending: OrderedDict[Key, PendingUpdate] = OrderedDict()

    def __len__(self) -> int:
        """How many jobs wait."""
        return len(self._pending)

    def holds(self, key: Key, job: JsonObject, *, since: float) -> bool:
        """Whether this very object waits to be written, as a copy that was seen since then."""
        pending = self._pending.get(key)
        copy = None if pending is None else pending.copy
        return copy is not None and copy.job is job and copy.seen >= since

    def put(self, key: Key, update: PendingUpdate) -> int:
        """Keep what is newest of a job; returns how many jobs were given up for it."""
        self._pending.setdefault(key, update).take(update)
        self._pending.move_to_end(key)
        return self._shrink()

    def take(self, count: int) -> dict[Key, PendingUpdate]:
        """Hand out the jobs that wait longest."""
        return dict(
            self._pending.popitem(last=False) for _ in range(min(count, len(self._pending)))
        )

    def put_back(self, taken: Mapping[Key, PendingUpdate]) -> int:
        """Undo a `take`, under what came meanwhile; returns how many jobs were given up for it."""
        for key, update in reversed(list(taken.items())):
            self._pending.setdefault(key, update).take(update)
            self._pending.move_to_end(key, last=False)
        return self._shrink()

    def _shrink(self) -> int:
        given_up = max(len(self._pending) - self._limit, 0)
        for _ in range(given_up):
            self._pending.popitem(last=False)
        return given_up


def status_number(status: str | int) -> int:
    """Return a status's number; a status of a newer contract is its own number, also as text."""
    if isinstance(status, int):
        return status
    return _NUMBERS.get(status, int(status) if status.isdecimal() else 0)


def status_name(number: int) -> str | int:
    """Undo `status_number`, as the API shows a status."""
    return STATUSES[number] if 0 <= number < len(STATUSES) else number


def status_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of statuses."""
    return [status_number(name) for name in names]


def time_of(text: str | None) -> datetime | None:
    """Read a time as the API shows it: RFC 3339, UTC; nanoseconds are cut off."""
    return None if text is None else datetime.fromisoformat(text)


def shown(time: datetime) -> str:
    """Write a time as the API shows it."""
    text = time.astimezone(UTC).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00").removesuffix(".000000") + "Z"
