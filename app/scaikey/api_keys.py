"""API keys: made, listed and revoked on the command line; found by the hash of what a caller sends.

A key is `sgk_` and 43 random characters (256 bits). It is told once, to
whoever makes it; the table has its SHA-256. A hash without salt is enough for
a secret that cannot be guessed, and lets an index find it.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.database.connection import connected
from app.scaikey.permissions import ROLES, Permission

PREFIX = "sgk_"
#: The id of a key: no secret, but what it is revoked and logged by.
KEY_ID = re.compile(r"key_[0-9a-f]{16}")
#: The channel of PostgreSQL's NOTIFY on which the ids of revoked keys are told.
REVOCATIONS = "mod_scaimind_revocations"
_FORM = re.compile(r"sgk_[A-Za-z0-9_-]{32,128}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,127}")
_PERMISSION = re.compile(r"[a-z][a-z0-9_]*:[a-z][a-z0-9_]*")

#: The columns of an `ApiKey`, in the order of its fields.
COLUMNS = "key_id, tenant_id, user_id, roles, permissions, name, created_at, expires_at, revoked_at"
_COUNTING = (
    "SELECT key_id FROM mod_scaimind_api_keys WHERE key_id = ANY(%s)"
    " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
)
_BY_HASH = f"SELECT key_hash, {COLUMNS} FROM mod_scaimind_api_keys WHERE key_hash = %s"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key, but not the key."""

    key_id: str
    tenant_id: str
    user_id: str
    roles: frozenset[str]
    #: Given one by one, beside those of the roles.
    permissions: frozenset[str]
    #: For people.
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def refusal(self, now: datetime) -> str | None:
        """Return why the key is not valid at `now`; None if it is."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, with the secret that nobody can read again."""

    key: ApiKey
    secret: str = field(repr=False)


class InvalidKey(ValueError):
    """A key cannot be made like this; the text says why."""


class UnknownKey(LookupError):
    """There is no key with this id."""


def create_key(
    dsn: str,
    *,
    tenant_id: str,
    user_id: str,
    roles: Collection[str] = (),
    permissions: Collection[str] = (),
    name: str = "",
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a key. Raises `InvalidKey` and `DatabaseError`.

    `expires_at` is aware and in the future; None means that the key does not
    expire.
    """
    _check(tenant_id, user_id, roles, permissions, name, expires_at)
    secret = PREFIX + secrets.token_urlsafe(32)
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO mod_scaimind_api_keys"
            " (key_id, key_hash, tenant_id, user_id, roles, permissions, name, expires_at)"
            f" VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {COLUMNS}",
            (
                f"key_{secrets.token_hex(8)}",
                digest(secret),
                tenant_id,
                user_id,
                sorted(set(roles)),
                sorted(set(permissions)),
                name,
                expires_at,
            ),
        )
        row = cursor.fetchone()
    assert row is not None
    return NewKey(_from_row(row), secret)


def list_keys(dsn: str, *, tenant_id: str | None = None) -> list[ApiKey]:
    """Return the keys, revoked and expired ones too, oldest first. Raises `DatabaseError`."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {COLUMNS} FROM mod_scaimind_api_keys"
            " WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s"
            " ORDER BY created_at, key_id",
            {"tenant": tenant_id},
        )
        return [_from_row(row) for row in cursor.fetchall()]


def revoke_key(dsn: str, key_id: str) -> ApiKey:
    """Revoke a key for good; one that is revoked already stays as it is.

    Every gateway is told when the transaction is committed.
    Raises `UnknownKey` and `DatabaseError`.
    """
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE mod_scaimind_api_keys SET revoked_at = coalesce(revoked_at, now())"
            f" WHERE key_id = %s RETURNING {COLUMNS}",
            (key_id,),
        )
        row = cursor.fetchone()
        cursor.execute("SELECT pg_notify(%s, %s)", (REVOCATIONS, key_id))
    if row is None:
        raise UnknownKey(f"there is no key {key_id!r}")
    return _from_row(row)


def is_api_key(token: str) -> bool:
    """Return whether a token has the form of an API key."""
    return _FORM.fullmatch(token) is not None


def digest(secret: str) -> bytes:
    """Hash a key as the table has it."""
    return hashlib.sha256(secret.encode()).digest()


def lookup_statement(key_digest: bytes) -> tuple[str, Sequence[Any]]:
    """Return the query, and its parameters, whose rows `found` reads."""
    return _BY_HASH, (key_digest,)


def found(rows: Sequence[Sequence[Any]], key_digest: bytes) -> ApiKey | None:
    """Read the answer to `lookup_statement`."""
    for stored, *row in rows:
        if hmac.compare_digest(bytes(stored), key_digest):
            return _from_row(row)
    return None


def counting_statement(key_ids: Collection[str]) -> tuple[str, Sequence[Any]]:
    """Return the query, and its parameters, for those of the keys that count now."""
    return _COUNTING, (sorted(key_ids),)


def _from_row(row: Sequence[Any]) -> ApiKey:
    key_id, tenant_id, user_id, roles, permissions, *rest = row
    return ApiKey(key_id, tenant_id, user_id, frozenset(roles), frozenset(permissions), *rest)


def _check(
    tenant_id: str,
    user_id: str,
    roles: Iterable[str],
    permissions: Iterable[str],
    name: str,
    expires_at: datetime | None,
) -> None:
    for what, value in (("tenant", tenant_id), ("user", user_id)):
        if not _NAME.fullmatch(value):
            raise InvalidKey(
                f"{what} {value!r}: 1 to 128 letters, digits and '@._+-', a letter or digit first"
            )
    for role in roles:
        if role not in ROLES:
            raise InvalidKey(f"role {role!r} is not one of {', '.join(ROLES)}")
    for permission in permissions:
        ours = permission.startswith("scaimind:")
        if not _PERMISSION.fullmatch(permission) or (ours and permission not in set(Permission)):
            raise InvalidKey(
                f"permission {permission!r}: '<module>:<action>', here one of "
                f"{', '.join(Permission)}"
            )
    if len(name) > 200 or not name.isprintable():
        raise InvalidKey("name: at most 200 printable characters")
    if expires_at is not None and expires_at.tzinfo is None:
        raise InvalidKey("expiry: a time zone is required")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidKey("expiry: it is in the past")
