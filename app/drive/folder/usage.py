"""How much tenants have on the drive, and whether more may come. On the event loop."""

from dataclasses import dataclass

from app.drive.folder.ledger import Claim
from app.errors import DRIVE_FULL, QUOTA_EXCEEDED, ApiError


@dataclass(slots=True)
class _Tenant:
    #: As of the last count; None before the first one.
    counted: int | None = None
    #: By what it has grown since that count began: what a count finds, it does not find again.
    growth: int = 0
    #: What came since the count began that runs now. What went may have gone before the count
    #: came to it.
    growth_during_count: int = 0
    #: What came or changed its place since then, and may be counted twice; of the last count.
    moved_during_count: int = 0
    doubtful: int = 0
    #: What unfinished uploads still lack, as of the last count and what has changed since.
    awaited: int = 0
    #: What other replicas have let in since this one's count, as far as it has looked.
    others: int = 0
    #: Why it cannot be counted.
    problem: str = ""


class Usage:
    """Keeps what was counted, what came since, and what is on its way.

    `quota` 0 is no limit; `min_free` bytes of the drive's disk stay free, and of a tenant's own.
    """

    def __init__(self, *, quota: int, min_free: int) -> None:
        self._quota = quota
        self._min_free = min_free
        self._tenants: dict[str, _Tenant] = {}
        self._leases: set[Lease] = set()

    @property
    def quota(self) -> int:
        """Bytes that a tenant may have; 0 is no limit."""
        return self._quota

    def known(self, tenant_id: str) -> bool:
        """Return whether the tenant has been counted."""
        return self._of(tenant_id).counted is not None

    def used(self, tenant_id: str) -> int:
        """Return what the tenant has, and what it is about to have."""
        its = self._of(tenant_id)
        leased = sum(each.size for each in self._leases if each.tenant_id == tenant_id)
        return max(0, (its.counted or 0) + its.growth + its.others) + leased

    def add(self, tenant_id: str, size: int) -> None:
        """Note by what the tenant has grown just now; less than 0 is what has gone."""
        its = self._of(tenant_id)
        its.growth += size
        its.growth_during_count += max(0, size)
        its.moved_during_count += max(0, size)

    def saw_others(self, tenant_id: str, size: int) -> None:
        """Take over what other replicas have let in since this one's count began."""
        self._of(tenant_id).others = size

    def moved(self, tenant_id: str, size: int) -> None:
        """Note that an upload's file has come to its place: a count may have seen it in both."""
        self._of(tenant_id).moved_during_count += size

    def awaits(self, tenant_id: str, size: int) -> None:
        """Note what unfinished uploads will write; less than 0 is what they have written."""
        its = self._of(tenant_id)
        its.awaited = max(0, its.awaited + size)

    def count_awaited(self, tenant_id: str, size: int) -> None:
        """Take over what uploads lacked when they were counted; what came since is forgotten."""
        self._of(tenant_id).awaited = size

    def count_begins(self, tenant_id: str) -> None:
        """From now on, what is added may be missed by the count."""
        its = self._of(tenant_id)
        its.growth_during_count = its.moved_during_count = 0

    def count_ends(self, tenant_id: str, counted: int, *, problem: str = "") -> None:
        """Take over what was counted; what was added meanwhile may be in it twice for a while,
        and what has gone may be in it as well."""
        its = self._of(tenant_id)
        its.counted, its.problem = counted, problem
        its.growth, its.doubtful = its.growth_during_count, its.moved_during_count

    def lease(
        self, tenant_id: str, size: int, *, free: int, claim: Claim, own_free: int | None = None
    ) -> "Lease":
        """Set room aside for a file of this size; `free` is what the disk has left.

        `own_free` is what the tenant's own disk has, if its folder is on one; `claim` is what
        other replicas know of the file.

        Raises `ApiError`, with the numbers, if there is none.
        """
        lease = Lease(self, tenant_id, free, claim, own_free)
        lease.grow(size)
        self._leases.add(lease)
        return lease

    def check(self, tenant_id: str, more: int, *, free: int, own_free: int | None = None) -> None:
        """Raise `ApiError`, with the numbers, unless so many more bytes may come."""
        self._check_counted(self._of(tenant_id))
        used = self.used(tenant_id)
        if self._quota and used + more > self._quota:
            raise ApiError(
                QUOTA_EXCEEDED,
                f"The file needs {more} bytes more, and your tenant has {used} of its"
                f" {self._quota} bytes on the drive. Delete files first.",
            )
        awaited = sum(each.size - each.written for each in self._leases)
        awaited += sum(each.awaited for each in self._tenants.values())
        self._check_disk(free - awaited, more, "the drive's disk")
        if own_free is not None:
            # Whole files come there, once they are complete.
            its = sum(each.size for each in self._leases if each.tenant_id == tenant_id)
            its += self._of(tenant_id).awaited
            self._check_disk(own_free - its, more, "your tenant's disk")

    def _check_disk(self, left: int, more: int, disk: str) -> None:
        if left - more < self._min_free:
            raise ApiError(
                DRIVE_FULL,
                f"The file needs {more} bytes more, and {disk} has {max(0, left)} left, of which"
                f" {self._min_free} stay free.",
            )

    def check_quota(self, tenant_id: str) -> None:
        """Raise `ApiError` if the tenant certainly has more than it may: jobs write meanwhile."""
        its = self._of(tenant_id)
        self._check_counted(its)
        used = (its.counted or 0) + its.growth - its.doubtful
        if self._quota and used > self._quota:
            raise ApiError(
                QUOTA_EXCEEDED,
                f"Your tenant has {used} of its {self._quota} bytes on the drive, unfinished"
                " uploads at their full length included. Delete files first.",
            )

    def _check_counted(self, its: _Tenant) -> None:
        if its.problem:
            raise ApiError(QUOTA_EXCEEDED, f"Your tenant's files cannot be counted: {its.problem}.")

    def check_free(self, size: int, *, free: int) -> None:
        """Raise `ApiError` unless a piece of a file may come. For any thread."""
        if free - size < self._min_free:
            raise ApiError(
                DRIVE_FULL,
                f"The drive's disk has {free} bytes left, of which {self._min_free} stay free.",
            )

    def end(self, lease: "Lease") -> None:
        """Take a lease back: the tenant has grown by what became of it."""
        self._leases.discard(lease)
        self.add(lease.tenant_id, lease.growth)

    def _of(self, tenant_id: str) -> _Tenant:
        return self._tenants.setdefault(tenant_id, _Tenant())


@dataclass(slots=True, eq=False)
class Lease:
    """Room for a file that is being written."""

    _usage: Usage
    tenant_id: str
    #: What the disk had left last, and how much of it was written then.
    _free: int
    claim: Claim
    #: What the tenant's own disk had left at the beginning, if its folder is on one.
    _own_free: int | None = None
    _written_then: int = 0
    size: int = 0
    #: How much of it is on the disk already.
    written: int = 0
    #: By how much the tenant has grown when it is given back.
    growth: int = 0

    def grow(self, size: int) -> None:
        """Make it at least so large. Raises `ApiError` like `Usage.lease`."""
        if size > self.size:
            self._usage.check(
                self.tenant_id,
                size - self.size,
                free=self._free - (self.written - self._written_then),
                own_free=self._own_free,
            )
            self.size = size

    def saw(self, free: int) -> None:
        """Note what the disk has left now."""
        self._free, self._written_then = free, self.written
