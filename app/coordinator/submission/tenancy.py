"""Whose jobs are taken up where jobs cannot be parted from each other."""

from app.coordinator.errors import FailedPrecondition
from app.coordinator.isolation.levels import Isolation
from app.coordinator.isolation.probe import remedies


class Tenancy:
    """Takes up jobs of one tenant alone below the levels that part tenants.

    A level that is weaker because the operator said so serves all tenants. What
    was accepted once is never refused by this.
    """

    def __init__(self, isolation: Isolation, *, chosen: bool, tenant_id: str | None) -> None:
        """`chosen` is set if the setting names the level; `tenant_id` owns the newest job."""
        self._isolation = isolation
        self._open = chosen or isolation.parts_tenants
        self._tenant_id = tenant_id

    def check(self, tenant_id: str) -> None:
        """Raise FailedPrecondition unless a job of this tenant is taken up; the first to be
        taken up is the only one from then on."""
        if self._open or self._tenant_id in (None, tenant_id):
            return
        refused = self._isolation.refused
        told = "; ".join(f"{level.value}: {reason}" for level, reason in refused.items())
        raise FailedPrecondition(
            f"this coordinator isolates jobs only at the level {self._isolation.level.value}, so it"
            f" serves one tenant, and that is another one. This machine refused {told}."
            f" {remedies(dict(refused))}; or accept the risk and set"
            f" SCAIMIND_COORDINATOR_ISOLATION to {self._isolation.level.value}"
        )

    def accepted(self, tenant_id: str) -> None:
        """A job of this tenant was taken up."""
        self._tenant_id = tenant_id
