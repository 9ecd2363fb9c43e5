"""Which tenants have a folder: those that the coordinator serves."""

import re
from typing import Final

from app.errors import AUTHZ_PERMISSION_DENIED, ApiError

#: As the coordinator has it, so that a tenant's id is the name of a folder and not a path.
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,127}")


def is_tenant(name: str) -> bool:
    """Return whether a folder of this name is a tenant's."""
    return TENANT.fullmatch(name) is not None


def check_tenant(tenant_id: str) -> None:
    """Raise `ApiError` if a tenant of this id has no folder."""
    if not is_tenant(tenant_id):
        raise ApiError(
            AUTHZ_PERMISSION_DENIED,
            "Your tenant has no folder on the drive: its id is not of the form that folders have.",
        )
