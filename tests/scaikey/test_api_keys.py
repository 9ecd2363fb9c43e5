"""API keys in PostgreSQL: made once, shown once, stored as a hash."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.database.connection import connected
from app.scaikey.api_keys import (
    InvalidKey,
    UnknownKey,
    create_key,
    digest,
    found,
    is_api_key,
    list_keys,
    lookup_statement,
    revoke_key,
)
from app.scaikey.permissions import ROLES, Permission, granted

LATER = datetime.now(UTC) + timedelta(hours=1)


def make(dsn: str, **others: Any) -> Any:
    return create_key(dsn, **({"tenant_id": "acme", "user_id": "ann"} | others))


def test_a_key_has_the_platforms_form_and_is_never_made_twice(migrated_dsn: str) -> None:
    made = [make(migrated_dsn) for _ in range(20)]
    assert len({new.secret for new in made}) == len({new.key.key_id for new in made}) == 20
    for new in made:
        assert is_api_key(new.secret)
        assert new.secret.startswith("sgk_")
        assert len(new.secret) >= len("sgk_") + 32


def test_what_is_stored_is_the_hash_alone(migrated_dsn: str) -> None:
    new = make(migrated_dsn, name="laptop", roles=["tenant_admin"])
    with connected(migrated_dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT k::text, key_hash FROM mod_scaimind_api_keys k")
        [(everything, stored)] = cursor.fetchall()
    assert bytes(stored) == hashlib.sha256(new.secret.encode()).digest()
    assert new.secret not in everything
    assert new.secret[4:12] not in everything
    assert new.secret not in repr(new)


def test_what_was_given_is_what_is_listed(migrated_dsn: str) -> None:
    new = make(
        migrated_dsn,
        roles=["tenant_viewer", "tenant_user"],
        permissions=["scaimind:evaluate", "other_module:read"],
        name="for the dashboard",
        expires_at=LATER,
    )
    [listed] = list_keys(migrated_dsn)
    assert listed == new.key
    assert (listed.tenant_id, listed.user_id, listed.name) == ("acme", "ann", "for the dashboard")
    assert listed.roles == {"tenant_viewer", "tenant_user"}
    assert listed.permissions == {"scaimind:evaluate", "other_module:read"}
    assert (listed.expires_at, listed.revoked_at) == (LATER, None)


def test_keys_are_listed_by_tenant_oldest_first(migrated_dsn: str) -> None:
    ids = [make(migrated_dsn, tenant_id=tenant).key.key_id for tenant in ("a", "b", "a")]
    assert [key.key_id for key in list_keys(migrated_dsn)] == ids
    assert [key.key_id for key in list_keys(migrated_dsn, tenant_id="a")] == [ids[0], ids[2]]
    assert list_keys(migrated_dsn, tenant_id="c") == []


def test_a_key_is_found_by_its_hash(migrated_dsn: str) -> None:
    new = make(migrated_dsn)
    make(migrated_dsn)
    with connected(migrated_dsn) as connection, connection.cursor() as cursor:
        cursor.execute(*lookup_statement(digest(new.secret)))
        assert found(cursor.fetchall(), digest(new.secret)) == new.key
        cursor.execute(*lookup_statement(digest("sgk_" + "x" * 43)))
        assert found(cursor.fetchall(), digest("sgk_" + "x" * 43)) is None


def test_a_row_with_another_hash_is_not_taken(migrated_dsn: str) -> None:
    new = make(migrated_dsn)
    with connected(migrated_dsn) as connection, connection.cursor() as cursor:
        cursor.execute(*lookup_statement(digest(new.secret)))
        assert found(cursor.fetchall(), digest("another")) is None


def test_revoking_is_for_good_and_can_be_repeated(migrated_dsn: str) -> None:
    new = make(migrated_dsn)
    revoked = revoke_key(migrated_dsn, new.key.key_id)
    assert revoked.revoked_at is not None
    assert revoked.refusal(datetime.now(UTC)) == "revoked"
    assert revoke_key(migrated_dsn, new.key.key_id) == revoked
    assert list_keys(migrated_dsn) == [revoked]


def test_a_key_that_does_not_exist_cannot_be_revoked(migrated_dsn: str) -> None:
    with pytest.raises(UnknownKey, match="key_0"):
        revoke_key(migrated_dsn, "key_0")


def test_a_key_counts_until_it_expires(migrated_dsn: str) -> None:
    key = make(migrated_dsn, expires_at=LATER).key
    assert key.refusal(LATER - timedelta(microseconds=1)) is None
    assert key.refusal(LATER) == "expired"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"tenant_id": ""}, "tenant ''"),
        ({"tenant_id": "a/b"}, "tenant 'a/b'"),
        ({"tenant_id": "x" * 129}, "tenant"),
        ({"user_id": "a\nb"}, "user"),
        ({"roles": ["boss"]}, "role 'boss' is not one of super_admin"),
        ({"permissions": ["scaimind:fly"]}, "permission 'scaimind:fly'"),
        ({"permissions": ["view"]}, "permission 'view'"),
        ({"name": "a\x1b[31m"}, "name"),
        ({"expires_at": LATER.replace(tzinfo=None)}, "time zone"),
        ({"expires_at": datetime.now(UTC) - timedelta(seconds=1)}, "past"),
    ],
)
def test_what_cannot_be_a_key_is_refused(
    migrated_dsn: str, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidKey, match=told):
        make(migrated_dsn, **wrong)
    assert list_keys(migrated_dsn) == []


@pytest.mark.parametrize(
    "token", ["", "sgk_", "sgk_short", "sgk_" + "x" * 31, "sgk_" + "x" * 200, "sgk_" + "é" * 40]
)
def test_what_has_not_the_form_of_a_key(token: str) -> None:
    assert not is_api_key(token)


def test_the_roles_grant_what_the_platform_says() -> None:
    everything = frozenset(Permission)
    assert {role: frozenset(grants) for role, grants in ROLES.items()} == {
        "super_admin": everything,
        "partner_admin": everything,
        "tenant_admin": everything,
        "tenant_viewer": frozenset({"scaimind:view"}),
        "tenant_user": frozenset(),
    }


def test_permissions_add_to_what_roles_grant() -> None:
    assert granted(["tenant_viewer"], ["scaimind:evaluate", "other:thing"]) == {
        "scaimind:view",
        "scaimind:evaluate",
        "other:thing",
    }
    assert granted(["a_custom_role"], []) == frozenset()
