"""The issuer over a real socket, with real API keys in a real PostgreSQL."""

import base64
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import structlog
from aiohttp import encode_basic_auth, web
from aiohttp.test_utils import TestClient
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from app.database.settings import DatabaseSettings
from app.issuer.keys import SigningKeys
from app.issuer.server import create_issuer
from app.issuer.settings import IssuerSettings
from app.scaikey.api_keys import create_key, revoke_key
from tests.databases import patient
from tests.secrecy import secret

SECRET = secret("a secret: with + and ü")

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
API_KEY = "urn:scaigrid:params:oauth:token-type:api-key"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"

Client = TestClient[web.Request, web.Application]


@dataclass(frozen=True, slots=True)
class Issuer:
    client: Client
    dsn: str
    keys: SigningKeys

    def key(self, **others: Any) -> str:
        return create_key(
            self.dsn,
            **{
                "tenant_id": "acme",
                "user_id": "ann",
                "roles": ["tenant_admin"],
                "permissions": ["scaidrive:read"],
                **others,
            },
        ).secret

    async def post(
        self, form: Mapping[str, str] | str, **headers: str
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        sent = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Authorization": encode_basic_auth("gateway", _encoded(SECRET)),
            **headers,
        }
        body = form if isinstance(form, str) else urlencode(form)
        async with self.client.post("/oauth2/token", data=body, headers=sent) as response:
            return response.status, await response.json(), response.headers

    async def exchange(
        self, subject_token: str, audience: str, *, kind: str = API_KEY
    ) -> dict[str, Any]:
        status, answer, _ = await self.post(asking(subject_token, audience, kind=kind))
        assert status == 200, answer
        return answer

    async def claims(self, token: str) -> dict[str, Any]:
        async with self.client.get("/.well-known/jwks.json") as response:
            key_set = KeySet.import_key_set(await response.json())
        return jwt.decode(token, key_set, algorithms=["RS256"]).claims


def _encoded(secret: str) -> str:
    return urlencode({"": secret})[1:]


def asking(subject_token: str, audience: str, *, kind: str = API_KEY) -> dict[str, str]:
    return {
        "grant_type": GRANT,
        "subject_token": subject_token,
        "subject_token_type": kind,
        "audience": audience,
    }


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> IssuerSettings:
    return IssuerSettings(
        data_dir=str(tmp_path_factory.mktemp("issuer")),
        name="https://issuer.test",
        client_id="gateway",
        client_secret=SECRET,
    )


@pytest.fixture(scope="module")
def keys(settings: IssuerSettings) -> SigningKeys:
    return SigningKeys.rotate(Path(settings.data_dir), now=0)


@pytest.fixture
async def issuer(
    aiohttp_client: Callable[[web.Application], Awaitable[Client]],
    settings: IssuerSettings,
    keys: SigningKeys,
    migrated_dsn: str,
) -> Issuer:
    app = create_issuer(settings, database=patient(migrated_dsn), keys=keys)
    return Issuer(await aiohttp_client(app), migrated_dsn, keys)


async def test_it_is_alive(issuer: Issuer) -> None:
    async with issuer.client.get("/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "alive"})


async def test_the_keys_are_public_and_may_be_kept(issuer: Issuer) -> None:
    async with issuer.client.get("/.well-known/jwks.json") as response:
        assert response.headers["Cache-Control"] == "public, max-age=300"
        assert response.content_type == "application/jwk-set+json"
        assert await response.json() == issuer.keys.public()


@pytest.mark.parametrize(
    ("audience", "lifetime"), [("scaidrive", 300), ("scaiatlas", 300), ("scaimind", 3600)]
)
async def test_an_api_key_becomes_a_token(issuer: Issuer, audience: str, lifetime: int) -> None:
    began = int(datetime.now(UTC).timestamp())
    status, answer, headers = await issuer.post(asking(issuer.key(), audience))
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    token = answer.pop("access_token")
    assert answer == {
        "issued_token_type": ACCESS,
        "token_type": "Bearer",
        "expires_in": lifetime,
    }
    claims = await issuer.claims(token)
    issued_at = claims["iat"]
    assert began <= issued_at <= datetime.now(UTC).timestamp()
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "iss": "https://issuer.test",
        "aud": audience,
        "sub": "ann",
        "tenant_id": "acme",
        "roles": ["tenant_admin"],
        "permissions": ["scaidrive:read"],
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + lifetime,
    }


async def test_no_two_tokens_are_the_same(issuer: Issuer) -> None:
    key = issuer.key()
    tokens = [(await issuer.exchange(key, "scaidrive"))["access_token"] for _ in range(2)]
    ids = {(await issuer.claims(token))["jti"] for token in tokens}
    assert len(ids) == 2


async def test_a_jwt_for_the_gateway_can_be_exchanged(issuer: Issuer) -> None:
    token = (await issuer.exchange(issuer.key(), "scaimind"))["access_token"]
    for kind in (JWT, ACCESS):
        answer = await issuer.exchange(token, "scaiatlas", kind=kind)
        claims = await issuer.claims(answer["access_token"])
        assert (claims["aud"], claims["tenant_id"], claims["sub"]) == ("scaiatlas", "acme", "ann")
        assert claims["roles"] == ["tenant_admin"]


async def test_no_token_outlives_what_it_was_made_of(issuer: Issuer) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=120)
    key = issuer.key(expires_at=ends)
    session = (await issuer.exchange(key, "scaimind"))["access_token"]
    drive = (await issuer.exchange(session, "scaidrive", kind=JWT))["access_token"]
    for token in (session, drive):
        assert (await issuer.claims(token))["exp"] == int(ends.timestamp())


async def refusal(issuer: Issuer, form: Mapping[str, str] | str, **options: str) -> tuple[int, str]:
    status, answer, headers = await issuer.post(form, **options)
    assert answer.keys() == {"error", "error_description"}
    assert headers["Cache-Control"] == "no-store"
    return status, answer["error"]


async def test_subject_tokens_that_do_not_count(issuer: Issuer) -> None:
    revoked = create_key(issuer.dsn, tenant_id="acme", user_id="ann", roles=["tenant_user"])
    revoke_key(issuer.dsn, revoked.key.key_id)
    key = issuer.key()
    drive = (await issuer.exchange(key, "scaidrive"))["access_token"]
    session = (await issuer.exchange(key, "scaimind"))["access_token"]
    header, payload, _ = session.split(".")
    foreign = jwt.encode(
        {"alg": "RS256", "kid": issuer.keys.kid},
        await issuer.claims(session),
        RSAKey.generate_key(2048),
    )
    expired = jwt.encode(
        {"alg": "RS256", "kid": issuer.keys.kid},
        {**await issuer.claims(session), "exp": 1},
        issuer.keys.current,
    )
    with structlog.testing.capture_logs() as events:
        for subject_token, kind in (
            (revoked.secret, API_KEY),
            ("sgk_" + "x" * 43, API_KEY),
            ("sgk_short", API_KEY),
            (session, API_KEY),
            (key, JWT),
            (drive, JWT),  # meant for ScaiDrive, which must not act as its caller
            (f"{header}.{payload}.", JWT),
            (foreign, JWT),
            (expired, JWT),
            ("eyJ.é.x", JWT),
        ):
            form = asking(subject_token, "scaiatlas", kind=kind)
            assert await refusal(issuer, form) == (400, "invalid_grant")
    assert {event["event"] for event in events} == {"subject_refused"}
    assert events[0]["reason"] == f"{revoked.key.key_id} is revoked"
    for each in (revoked.secret, key, drive, session, SECRET):
        assert each not in f"{events}"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": None}, "unsupported_grant_type"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": "urn:x:refresh_token"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"audience": None}, "invalid_target"),
        ({"audience": "scaikey"}, "invalid_target"),
        ({"resource": "https://drive"}, "invalid_target"),
    ],
)
async def test_requests_that_are_not_right(
    issuer: Issuer, change: dict[str, str | None], error: str
) -> None:
    form = {**asking(issuer.key(), "scaidrive"), **change}
    sent = {name: value for name, value in form.items() if value is not None}
    assert await refusal(issuer, sent) == (400, error)


async def test_bodies_that_are_not_right(issuer: Issuer) -> None:
    form = urlencode(asking(issuer.key(), "scaidrive"))
    assert await refusal(issuer, f"{form}&audience=scaiatlas") == (400, "invalid_target")
    assert await refusal(issuer, f"{form}&subject_token=x") == (400, "invalid_request")
    assert await refusal(issuer, f"{form}&more={'x' * 40_000}") == (400, "invalid_request")
    for content_type in (
        "application/json",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded; charset=klingon",
    ):
        headers = {"Content-Type": content_type}
        assert await refusal(issuer, form, **headers) == (400, "invalid_request")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic Z2F0ZXdheQ==",
        "Bearer x",
        encode_basic_auth("gateway", "wrong"),
        encode_basic_auth("other", _encoded(SECRET)),
        encode_basic_auth("gateway", ""),
    ],
)
async def test_a_client_that_is_not_known(issuer: Issuer, authorization: str) -> None:
    headers = {"Authorization": authorization}
    status, answer, answered = await issuer.post(asking(issuer.key(), "scaidrive"), **headers)
    assert (status, answer["error"]) == (401, "invalid_client")
    assert answered["WWW-Authenticate"].startswith("Basic ")
    assert base64.b64encode(SECRET.encode()).decode() not in f"{answer}"


async def test_a_database_that_is_down_is_nobodys_fault(
    aiohttp_client: Callable[[web.Application], Awaitable[Client]],
    settings: IssuerSettings,
    keys: SigningKeys,
) -> None:
    database = DatabaseSettings(dsn="postgresql://u:the-password@127.0.0.1:1/db", pool_min=0)
    app = create_issuer(settings, database=database, keys=keys)
    issuer = Issuer(await aiohttp_client(app), "", keys)
    with structlog.testing.capture_logs() as events:
        status, answer, headers = await issuer.post(asking("sgk_" + "x" * 43, "scaidrive"))
    assert (status, answer["error"]) == (503, "temporarily_unavailable")
    assert headers["Retry-After"] == "2"
    assert "the-password" not in f"{events} {answer}"


async def test_a_rotated_key_still_counts_for_subject_tokens(
    issuer: Issuer,
    settings: IssuerSettings,
    aiohttp_client: Callable[[web.Application], Awaitable[Client]],
    tmp_path: Path,
) -> None:
    session = (await issuer.exchange(issuer.key(), "scaimind"))["access_token"]
    folder = tmp_path / "rotated"
    shutil.copytree(settings.data_dir, folder)
    now = datetime.now(UTC).timestamp()
    rotated = SigningKeys.load(folder, now=now, max_age=0, longest_lifetime=3600)
    assert rotated.kid != issuer.keys.kid
    app = create_issuer(settings, database=patient(issuer.dsn), keys=rotated)
    other = Issuer(await aiohttp_client(app), issuer.dsn, rotated)
    answer = await other.exchange(session, "scaidrive", kind=JWT)
    assert (await other.claims(answer["access_token"]))["sub"] == "ann"
