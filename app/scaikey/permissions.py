"""The permission keys, and what the platform's roles grant."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType


class Permission(StrEnum):
    """A permission key of this module."""

    VIEW = "scaimind:view"
    MANAGE = "scaimind:manage"
    CLUSTER_ADMIN = "scaimind:cluster_admin"
    EVALUATE = "scaimind:evaluate"


_ALL = frozenset(Permission)

#: The platform's roles, weakest last. A role that is not here grants nothing.
ROLES: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {
        "super_admin": _ALL,
        "partner_admin": _ALL,
        "tenant_admin": _ALL,
        "tenant_viewer": frozenset({Permission.VIEW}),
        "tenant_user": frozenset(),
    }
)

#: Permissions that are often given together, by the name of who needs them. A key keeps the
#: permissions, not the name: roles are the platform's.
PRESETS: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {"engineer": frozenset({Permission.VIEW, Permission.MANAGE, Permission.EVALUATE})}
)


def granted(roles: Iterable[str], permissions: Iterable[str]) -> frozenset[str]:
    """Add what the roles grant to permission keys that were given one by one.

    Keys of other modules pass through: a token may carry them, and they
    match no endpoint here.
    """
    return _granted(frozenset(roles), frozenset(permissions))


@lru_cache(maxsize=1024)
def _granted(roles: frozenset[str], permissions: frozenset[str]) -> frozenset[str]:
    keys: set[str] = {str(key) for key in permissions}
    for role in roles:
        keys.update(key.value for key in ROLES.get(role, ()))
    return frozenset(keys)
