"""From an `Authorization` header to a caller, or to a refusal that tells nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from app.auth.authenticator import ApiKeyVerifier, Authenticator, Refused, Verifier
from app.caller import Caller
from app.database.pool import Pool
from app.database.settings import DatabaseSettings
from app.errors import ApiError
from app.scaikey.api_key_lookup import KeyLookup
from app.scaikey.api_keys import create_key, revoke_key
from app.telemetry.metrics import Metrics

WELL_FORMED = "sgk_" + "x" * 43
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


class Fixed(Verifier):
    """Knows one token, `fixed`."""

    def recognises(self, token: str) -> bool:
        return token.startswith("fixed")

    async def verify(self, token: str) -> Caller:
        if token != "fixed":
            raise Refused("it is not the one")
        return Caller(tenant_id="acme", user_id="ann")


authenticator = Authenticator(verifiers=(Fixed(),))


async def refusal(authorization: Sequence[str], who: Authenticator = authenticator) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await who.authenticate(authorization, request_id="req_1")
    return caught.value


@pytest.mark.parametrize("header", ["Bearer fixed", "bearer fixed", "  BEARER   fixed  "])
async def test_a_token_gives_its_caller_with_the_requests_id(header: str) -> None:
    caller = await authenticator.authenticate([header], request_id="req_1")
    assert caller == Caller(
        tenant_id="acme", user_id="ann", request_id="req_1", subject_token="fixed"
    )
    assert "fixed" not in repr(caller)


@pytest.mark.parametrize("headers", [[], [""], ["Bearer"], ["Bearer "], ["Basic YTpi"], ["fixed"]])
async def test_no_token(headers: list[str]) -> None:
    assert (await refusal(headers)).kind.code == "AUTH_TOKEN_MISSING"


@pytest.mark.parametrize(
    "headers",
    [
        ["Bearer unknown"],
        ["Bearer fixed-but-not-quite"],
        ["Bearer fixed fixed"],
        ["Bearer fixed", "Bearer fixed"],
        ["Bearer " + "x" * 9000],
        ["Bearer fixéd"],
        [f"Bearer {JWT}"],
    ],
)
async def test_a_token_that_does_not_count(headers: list[str]) -> None:
    assert (await refusal(headers)).kind.code == "AUTH_TOKEN_INVALID"


async def test_why_it_does_not_count_is_for_the_log_alone() -> None:
    with structlog.testing.capture_logs() as events:
        error = await refusal(["Bearer fixed-but-not-quite"])
    assert [(event["event"], event["reason"]) for event in events] == [
        ("token_refused", "it is not the one")
    ]
    assert "not the one" not in error.message
    assert "fixed-but-not-quite" not in f"{events} {error}"


class Keys:
    """Authenticates against a real table, asking it each time."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.pool = Pool(DatabaseSettings(dsn=dsn, pool_min=0, connect_timeout=60))
        self.now = datetime.now(UTC)
        lookup = KeyLookup(
            database=self.pool, ttl=0, size=1, clock=lambda: 0.0, lookups=Metrics().auth_lookups
        )
        self.authenticator = Authenticator(
            verifiers=(ApiKeyVerifier(keys=lookup, now=lambda: self.now),)
        )

    def make(self, **others: Any) -> Any:
        return create_key(self.dsn, tenant_id="acme", user_id="ann", **others)


async def test_an_api_key_names_its_caller(migrated_dsn: str) -> None:
    keys = Keys(migrated_dsn)
    new = keys.make(roles=["tenant_viewer"], permissions=["scaimind:evaluate"])
    caller = await keys.authenticator.authenticate([f"Bearer {new.secret}"], request_id="r")
    assert caller == Caller(
        tenant_id="acme",
        user_id="ann",
        roles=frozenset({"tenant_viewer"}),
        permissions=frozenset({"scaimind:view", "scaimind:evaluate"}),
        credential_id=new.key.key_id,
        expires_at=None,
        request_id="r",
        subject_token=new.secret,
    )
    assert new.secret not in repr(caller)
    await keys.pool.shut()


async def test_keys_that_no_longer_count(migrated_dsn: str) -> None:
    keys = Keys(migrated_dsn)
    expiry = datetime(2100, 1, 1, tzinfo=UTC)
    revoked, expiring = keys.make(), keys.make(expires_at=expiry)
    for new in (revoked, expiring):
        await keys.authenticator.authenticate([f"Bearer {new.secret}"], request_id="r")
    revoke_key(migrated_dsn, revoked.key.key_id)
    keys.now = expiry
    with structlog.testing.capture_logs() as events:
        for new in (revoked, expiring):
            error = await refusal([f"Bearer {new.secret}"], keys.authenticator)
            assert error.kind.code == "AUTH_TOKEN_INVALID"
        await refusal([f"Bearer {WELL_FORMED}"], keys.authenticator)
        await refusal(["Bearer sgk_short"], keys.authenticator)
    assert [event["reason"] for event in events] == [
        f"{revoked.key.key_id} is revoked",
        f"{expiring.key.key_id} is expired",
        "an API key that does not exist",
        "an API key of an invalid form",
    ]
    await keys.pool.shut()


@pytest.mark.parametrize("schema", [False, True], ids=["no-server", "no-table"])
async def test_a_key_that_cannot_be_looked_up_is_nobodys_fault(
    postgres_dsn: str, schema: bool
) -> None:
    keys = Keys(postgres_dsn if schema else "postgresql://u:the-password@127.0.0.1:1/db")
    with structlog.testing.capture_logs() as events:
        error = await refusal([f"Bearer {WELL_FORMED}"], keys.authenticator)
    assert (error.kind.code, error.kind.status, error.retry_after) == ("AUTH_UNAVAILABLE", 503, 2)
    assert [event["event"] for event in events] == ["api_key_lookup_failed"]
    assert "the-password" not in f"{events} {error}"
    await keys.pool.shut()
