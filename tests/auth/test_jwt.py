"""JWTs: what is accepted, and everything that is not, against a real issuer's keys."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
import orjson
import pytest
import structlog
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws, jwt

from app.auth.authenticator import Authenticator, Refused
from app.auth.jwt import JwtVerifier
from app.auth.settings import AuthSettings
from app.caller import Caller
from app.errors import ApiError
from app.scaikey.jwks import KeySetCache
from app.telemetry.metrics import Metrics
from tests.auth.conftest import Clock
from tests.auth.scripted_issuer import ScriptedIssuer, claims, ec_key, public, rsa_key, signed


@pytest.fixture
async def authenticator(
    auth: AuthSettings, session: aiohttp.ClientSession, clock: Clock
) -> AsyncIterator[Authenticator]:
    keys = KeySetCache(
        settings=auth.jwks, session=session, clock=clock, fetches=Metrics().jwks_fetches
    )
    yield Authenticator(verifiers=(JwtVerifier(settings=auth, keys=keys, now=clock),))
    await keys.close()


async def caller_of(authenticator: Authenticator, token: str) -> Caller:
    return await authenticator.authenticate([f"Bearer {token}"], request_id="req_1")


async def test_a_token_names_its_caller(authenticator: Authenticator, clock: Clock) -> None:
    token = signed(claims(clock.now))
    caller = await caller_of(authenticator, token)
    assert caller == Caller(
        tenant_id="acme",
        user_id="ann",
        roles=frozenset({"tenant_viewer"}),
        permissions=frozenset({"scaimind:view", "scaimind:evaluate"}),
        credential_id="jwt:token-1",
        expires_at=datetime.fromtimestamp(int(clock.now) + 3600 + 30, UTC),
        request_id="req_1",
        subject_token=token,
    )
    assert token not in repr(caller)


@pytest.mark.parametrize(
    "others",
    [
        {"aud": ["other", "scaimind"]},
        {"nbf": None, "iat": None},
        {"roles": None, "permissions": None},
        {"sub": "auth0|5f7c8ec7c33c6c004bbafe82"},
        {"nickname": {"deep": [1, {"er": None}]}},
        {"exp": 1_800_000_000.5},
    ],
)
async def test_tokens_that_count(
    authenticator: Authenticator, clock: Clock, others: dict[str, Any]
) -> None:
    caller = await caller_of(authenticator, signed(claims(clock.now, **others)))
    assert caller.tenant_id == "acme"


@pytest.mark.parametrize("token_id", [None, "", "a b", "x" * 200])
async def test_a_token_without_a_usable_id_is_named_by_its_hash(
    authenticator: Authenticator, clock: Clock, token_id: str | None
) -> None:
    token = signed(claims(clock.now, jti=token_id))
    caller = await caller_of(authenticator, token)
    assert caller.credential_id == f"jwt:sha256:{hashlib.sha256(token.encode()).hexdigest()[:32]}"


async def test_clocks_may_differ_a_little(authenticator: Authenticator, clock: Clock) -> None:
    token = signed(claims(clock.now))
    clock.now -= 30
    await caller_of(authenticator, token)
    clock.now -= 1
    with pytest.raises(ApiError):
        await caller_of(authenticator, token)
    clock.now += 31 + 3600 + 29
    await caller_of(authenticator, token)
    clock.now += 1
    with pytest.raises(ApiError):
        await caller_of(authenticator, token)


@pytest.mark.parametrize("exp", [1_800_000_000, 1_800_000_000.5])
async def test_a_token_that_is_accepted_has_not_ended(
    authenticator: Authenticator, clock: Clock, exp: float
) -> None:
    token = signed(claims(clock.now, exp=exp))
    for part in range(40):
        clock.now = exp + 29 + part / 20
        now = datetime.fromtimestamp(clock.now, UTC)
        if clock.now < exp + 30:
            assert not (await caller_of(authenticator, token)).expired(now)
        else:
            with pytest.raises(ApiError):
                await caller_of(authenticator, token)


def b64(content: Any) -> str:
    data = content if isinstance(content, bytes) else orjson.dumps(content)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def by_hand(header: Any, payload: Any, sign: Callable[[bytes], bytes]) -> str:
    signing_input = f"{b64(header)}.{b64(payload)}"
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def rsa_signature(data: bytes) -> bytes:
    """The genuine key's, over anything."""
    return jws.JWSRegistry.algorithms["RS256"].sign(data, rsa_key())


def hmac_with_public_key(now: float) -> str:
    """The classic confusion: the public key, which everyone knows, as a shared secret."""
    pem = rsa_key().public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return by_hand(
        {"alg": "HS256", "kid": "k1"},
        claims(now),
        lambda data: hmac.digest(pem, data, "sha256"),
    )


def tampered(now: float) -> str:
    header, _, signature = signed(claims(now)).split(".")
    return f"{header}.{b64(claims(now, tenant_id='other'))}.{signature}"


NOW = 1_800_000_000.0

#: How each is made, and what the log says of it.
REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "HS256 with the public key": (lambda: hmac_with_public_key(NOW), "algorithm 'HS256'"),
    "none": (lambda: by_hand({"alg": "none", "kid": "k1"}, claims(NOW), lambda _: b""), "'none'"),
    "None": (lambda: by_hand({"alg": "None", "kid": "k1"}, claims(NOW), lambda _: b""), "'None'"),
    "RS512": (
        lambda: jwt.encode(
            {"alg": "RS512", "kid": "k1"}, claims(NOW), rsa_key(), algorithms=["RS512"]
        ),
        "'RS512'",
    ),
    "ES256": (lambda: jwt.encode({"alg": "ES256", "kid": "ec"}, claims(NOW), ec_key()), "'ES256'"),
    "no alg": (lambda: by_hand({"kid": "k1"}, claims(NOW), rsa_signature), "malformed JWT"),
    "alg is a list": (
        lambda: by_hand({"alg": ["RS256"], "kid": "k1"}, claims(NOW), rsa_signature),
        "algorithm ['RS256']",
    ),
    "an EC key under the kid": (lambda: signed(claims(NOW), kid="ec"), "it is not an RSA key"),
    "a PS256 key under the kid": (
        lambda: signed(claims(NOW), kid="pss"),
        "an algorithm other than",
    ),
    "no kid": (
        lambda: by_hand({"alg": "RS256"}, claims(NOW), rsa_signature),
        "without a key id",
    ),
    "kid is a number": (
        lambda: by_hand({"alg": "RS256", "kid": 1}, claims(NOW), rsa_signature),
        "without a key id",
    ),
    "an unknown kid": (
        lambda: signed(claims(NOW), kid="k9"),
        "'k9': the issuer does not have this key",
    ),
    "another key's signature": (
        lambda: signed(claims(NOW), key=rsa_key(2)),
        "signature by key",
    ),
    "its own key in the header": (
        lambda: signed(claims(NOW), key=rsa_key(2), jwk=rsa_key(2).as_dict(private=False)),
        "",
    ),
    "no signature": (
        lambda: signed(claims(NOW)).rpartition(".")[0] + ".",
        "signature by key",
    ),
    "a signature that is not base64": (
        lambda: signed(claims(NOW)).rpartition(".")[0] + ".!!!",
        "signature by key",
    ),
    "tampered with": (lambda: tampered(NOW), "signature by key"),
    "crit": (
        lambda: by_hand({"alg": "RS256", "kid": "k1", "crit": ["exp"]}, claims(NOW), rsa_signature),
        "requires an extension",
    ),
    "b64": (
        lambda: by_hand(
            {"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": False}, claims(NOW), rsa_signature
        ),
        "requires an extension",
    ),
    "a header that is a list": (lambda: by_hand(["alg", "b64"], claims(NOW), rsa_signature), ""),
    "a payload that is a list": (
        lambda: by_hand({"alg": "RS256", "kid": "k1"}, [1], rsa_signature),
        "not a JSON object",
    ),
    "a payload of nonsense": (
        lambda: by_hand({"alg": "RS256", "kid": "k1"}, b"\xff{", rsa_signature),
        "not a JSON object",
    ),
    "an exp that is not a number to JSON": (
        lambda: by_hand({"alg": "RS256", "kid": "k1"}, b'{"exp": NaN}', rsa_signature),
        "not a JSON object",
    ),
    "huge": (lambda: "eyJ" + "x" * 8000 + ".eyJ9." + "y" * 400, ""),
    "a long header": (lambda: signed(claims(NOW), x="y" * 600), "malformed JWT"),
}

BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "no exp": {"exp": None},
    "exp is text": {"exp": "2030-01-01"},
    "exp is true": {"exp": True},
    "exp is a list": {"exp": [2_000_000_000]},
    "exp beyond all times": {"exp": 10**30},
    "exp is long ago": {"exp": 1},
    "expired": {"exp": int(NOW) - 31},
    "nbf in the future": {"nbf": int(NOW) + 60},
    "nbf is text": {"nbf": "now"},
    "iat in the future": {"iat": int(NOW) + 60},
    "no iss": {"iss": None},
    "another issuer": {"iss": "https://scaikey.example"},
    "iss is a list": {"iss": ["https://scaikey.test"]},
    "no aud": {"aud": None},
    "another audience": {"aud": "scaidrive"},
    "aud is empty": {"aud": []},
    "aud is nested": {"aud": [["scaimind"]]},
    "aud is an object": {"aud": {"scaimind": True}},
    "no sub": {"sub": None},
    "sub is a number": {"sub": 7},
    "sub is empty": {"sub": ""},
    "sub has a line break": {"sub": "ann\nx-tenant-id: other"},
    "sub ends in a space": {"sub": "ann "},
    "no tenant": {"tenant_id": None},
    "tenant is empty": {"tenant_id": ""},
    "tenant is a list": {"tenant_id": ["acme"]},
    "tenant is a path": {"tenant_id": "../other"},
    "tenant has a space": {"tenant_id": "acme corp"},
    "tenant is too long": {"tenant_id": "a" * 129},
    "roles is text": {"roles": "tenant_admin"},
    "roles is an object": {"roles": {"tenant_admin": True}},
    "roles hold a list": {"roles": [["tenant_admin"]]},
    "permissions hold a number": {"permissions": [1]},
    "too many roles": {"roles": ["r"] * 1001},
    "jti is a number": {"jti": 5},
}


async def refusal(authenticator: Authenticator, token: str) -> str:
    """What the log says of a token that is refused; the caller is told none of it."""
    with structlog.testing.capture_logs() as events, pytest.raises(ApiError) as caught:
        await caller_of(authenticator, token)
    assert (caught.value.kind.code, caught.value.kind.status) == ("AUTH_TOKEN_INVALID", 401)
    assert caught.value.message == caught.value.kind.text
    assert token not in f"{events}"
    reasons = [event["reason"] for event in events if event["event"] == "token_refused"]
    return str(reasons[0]) if reasons else ""


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused(
    authenticator: Authenticator, issuer: ScriptedIssuer, case: str
) -> None:
    issuer.keys += [
        public(ec_key(), "ec"),
        public(rsa_key(), "pss", alg="PS256"),
        {"kty": "oct", "kid": "oct", "k": "c2VjcmV0"},
    ]
    make, why = REFUSED[case]
    assert why in await refusal(authenticator, make())


@pytest.mark.parametrize("case", BAD_CLAIMS)
async def test_claims_that_are_refused(authenticator: Authenticator, case: str) -> None:
    (name,) = BAD_CLAIMS[case]
    said = claims(NOW, **BAD_CLAIMS[case])
    reason = await refusal(authenticator, signed(said))
    assert name in reason
    assert len(reason) < 300


@pytest.mark.parametrize(
    "token", ["eyJ", "eyJhbGciOiJSUzI1NiJ9", "eyJ.eyJ", "eyJ.a.b.c", "eyJ.a.b.c.d", "a.b.c"]
)
async def test_what_is_no_jwt(authenticator: Authenticator, token: str) -> None:
    assert "form of a known kind" in await refusal(authenticator, token)


@pytest.mark.parametrize("token", ["eyJ..", "eyJ.eyJ.eyJ", "eyJhbGciOiJSUzI1NiJ9.."])
async def test_what_only_looks_like_a_jwt(authenticator: Authenticator, token: str) -> None:
    assert await refusal(authenticator, token)


async def test_an_issuer_that_cannot_be_asked_is_nobodys_fault(
    authenticator: Authenticator, issuer: ScriptedIssuer, clock: Clock
) -> None:
    async def broken(_: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(status=500)

    issuer.jwks = broken
    with structlog.testing.capture_logs() as events, pytest.raises(ApiError) as caught:
        await caller_of(authenticator, signed(claims(clock.now)))
    error = caught.value
    assert (error.kind.code, error.kind.status, error.retry_after) == ("AUTH_UNAVAILABLE", 503, 2)
    assert [event["event"] for event in events] == ["jwks_fetch_failed", "jwt_check_failed"]


async def test_a_token_is_verified_once_while_the_keys_stay(
    authenticator: Authenticator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[object] = []
    validate = jws.validate_compact

    def count(*given: Any, **named: Any) -> bool:
        verified.append(given)
        return validate(*given, **named)

    monkeypatch.setattr(jws, "validate_compact", count)
    token = signed(claims(clock.now))
    callers = {await caller_of(authenticator, token) for _ in range(3)}
    assert (len(callers), len(verified)) == (1, 1)
    await caller_of(authenticator, signed(claims(clock.now, sub="bob")))
    assert len(verified) == 2
    # Another token of the same beginning is another one.
    with pytest.raises(ApiError):
        await caller_of(authenticator, token[:-4] + "AAAA")
    clock.now += 601  # the keys are fetched again
    await caller_of(authenticator, token)
    assert len(verified) == 4


async def test_a_token_that_was_verified_ends_with_its_key(
    authenticator: Authenticator, issuer: ScriptedIssuer, clock: Clock
) -> None:
    token = signed(claims(clock.now))
    await caller_of(authenticator, token)
    issuer.keys = [public(rsa_key(2), "k2")]
    clock.now += 601
    with pytest.raises(ApiError) as refused:
        await caller_of(authenticator, token)
    assert refused.value.kind.code == "AUTH_TOKEN_INVALID"


async def test_a_token_that_was_verified_ends_while_its_key_is_waited_for(
    auth: AuthSettings, clock: Clock
) -> None:
    key = rsa_key()

    class Keys:
        """Keys that take an hour."""

        takes = 0

        async def find(self, _: str) -> object:
            clock.now += self.takes
            return key

    keys = Keys()
    verifier = JwtVerifier(settings=auth, keys=cast(KeySetCache, keys), now=clock)
    token = signed(claims(clock.now))
    await verifier.verify(token)
    keys.takes = 3700
    with pytest.raises(Refused):
        await verifier.verify(token)
