"""The rate limit and CORS of a whole gateway; the security headers by setting."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from app.api.app_keys import METRICS, RATE_LIMIT
from app.api.settings import CorsSettings, LimitsSettings, ServerSettings
from app.gateway.settings import Settings
from app.scaikey.api_keys import create_key
from tests.api.conftest import Gateway, Keys
from tests.api.endpoints import PREFIX

JOBS = f"{PREFIX}/jobs"
PAGE = "https://app.example.com"

Start = Callable[[Settings], Awaitable[Gateway]]


@pytest.fixture
async def limited(start: Start, settings: Settings) -> Gateway:
    """Three requests at once, and one every thousand seconds."""
    return await start(replace(settings, limits=LimitsSettings(rate=0.001, burst=3)))


async def test_beyond_the_limit_one_is_told_to_wait(limited: Gateway) -> None:
    assert [(await limited.ask("GET", JOBS)).status for _ in range(3)] == [200] * 3
    answer = await limited.ask("GET", JOBS)
    assert (answer.status, answer.error["code"]) == (429, "RATE_LIMITED")
    assert 990 <= answer.error["retry_after"] <= 1000
    assert answer.headers["Retry-After"] == str(answer.error["retry_after"])
    assert len(limited.coordinator.requests("ListJobs")) == 3
    counted = limited.app[METRICS].registry.get_sample_value("scaimind_rate_limited_total")
    assert counted == 1


async def test_all_keys_of_a_user_share_the_limit_and_no_other_user_does(
    limited: Gateway, keys: Keys
) -> None:
    for role in ("tenant_admin", "tenant_viewer", "tenant_admin", "tenant_viewer"):
        answer = await limited.ask("GET", JOBS, key=keys.by_role[role])
    assert answer.status == 429
    other = await asyncio.to_thread(
        create_key, keys.dsn, tenant_id="acme", user_id="bob", roles=["tenant_viewer"]
    )
    assert (await limited.ask("GET", JOBS, key=other.secret)).status == 200


async def test_what_is_refused_for_want_of_a_permission_counts(
    limited: Gateway, keys: Keys
) -> None:
    nobody = keys.by_role["tenant_user"]
    statuses = [(await limited.ask("GET", JOBS, key=nobody)).status for _ in range(4)]
    assert statuses == [403, 403, 403, 429]


async def test_what_is_public_or_unknown_is_not_counted(limited: Gateway) -> None:
    for _ in range(5):
        assert (await limited.ask("GET", "/health")).status == 200
        assert (await limited.ask("GET", "/nothing")).status == 404
        assert (await limited.ask("GET", JOBS, headers={"Authorization": ""})).status == 401
    rate_limit = limited.app[RATE_LIMIT]
    assert rate_limit is not None
    assert len(rate_limit) == 0


async def test_without_a_rate_there_is_no_limit(start: Start, settings: Settings) -> None:
    gateway = await start(replace(settings, limits=LimitsSettings(rate=0, burst=1)))
    assert [(await gateway.ask("GET", JOBS)).status for _ in range(5)] == [200] * 5


# CORS


@pytest.fixture
async def open_to_a_page(start: Start, settings: Settings) -> Gateway:
    return await start(replace(settings, cors=CorsSettings(origins=(PAGE, "http://[::1]:3000"))))


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Authorization": ""}


async def test_without_origins_no_page_is_told_anything(gateway: Gateway) -> None:
    for method, headers in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        answer = await gateway.ask(method, JOBS, headers={"Origin": PAGE, **headers})
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert "Vary" not in answer.headers


@pytest.mark.parametrize("origin", [PAGE, "http://[::1]:3000"])
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (JOBS, {}, 200),
        (JOBS, {"Authorization": ""}, 401),
        (f"{JOBS}?x=1", {}, 422),
        ("/nothing", {}, 404),
        (f"{JOBS}/job-1/logs?tail=-1", {}, 422),
    ],
)
async def test_a_listed_page_may_read_answers_and_errors(
    open_to_a_page: Gateway, origin: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await open_to_a_page.ask("GET", path, headers={"Origin": origin, **headers})
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert {"X-Request-ID", "Retry-After"} <= set(
        answer.headers["Access-Control-Expose-Headers"].split(", ")
    )
    assert answer.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "https://app.example.com.evil.org",
        "https://app.example.com:8443",
        "http://app.example.com",
        "HTTPS://APP.EXAMPLE.COM",
        "null",
        "",
        None,
    ],
)
async def test_no_other_page_may(open_to_a_page: Gateway, origin: str | None) -> None:
    sent = {} if origin is None else {"Origin": origin}
    for method, headers in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        answer = await open_to_a_page.ask(method, JOBS, headers={**sent, **headers})
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        # What is kept for this one must not be given to another.
        assert answer.headers["Vary"] == "Origin"


async def test_a_preflight_is_told_what_may_be_sent(open_to_a_page: Gateway) -> None:
    answer = await open_to_a_page.ask("OPTIONS", JOBS, headers={"Origin": PAGE, **PREFLIGHT})
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert set(answer.headers["Access-Control-Allow-Methods"].split(",")) == {"GET", "HEAD", "POST"}
    assert {"Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"} <= set(
        answer.headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert answer.headers["Access-Control-Max-Age"] == "600"
    plain = await open_to_a_page.ask("OPTIONS", JOBS, headers={"Origin": PAGE, "Authorization": ""})
    assert "Access-Control-Allow-Methods" not in plain.headers


async def test_all_pages_may_if_that_is_wanted(start: Start, settings: Settings) -> None:
    gateway = await start(replace(settings, cors=CorsSettings(origins=("*",))))
    answer = await gateway.ask("GET", JOBS, headers={"Origin": "https://any.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


# Security headers


async def test_https_is_insisted_on_if_that_is_set(start: Start, settings: Settings) -> None:
    gateway = await start(replace(settings, server=ServerSettings(hsts_max_age=31_536_000)))
    for path in (JOBS, "/nothing", "/health"):
        answer = await gateway.ask("GET", path)
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


async def test_otherwise_nothing_is_said_of_it(gateway: Gateway) -> None:
    assert "Strict-Transport-Security" not in (await gateway.ask("GET", JOBS)).headers
