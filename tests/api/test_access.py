"""Who may do what: every route with every role, every single permission, and no token at all."""

import pytest
from aiohttp import web
from grpc import StatusCode

from app.api.access import access_of, check_declared, public, requires
from app.application import create_app
from app.auth.permissions import ROLES, Permission
from app.settings import Settings
from tests.api.conftest import API_SECRET, Gateway
from tests.api.endpoints import ENDPOINTS, PREFIX, STREAMS, Endpoint
from tests.scripted_coordinator import SERVICE, Failure

BY_ROUTE = {(each.method, PREFIX + each.route): each for each in ENDPOINTS}
NEEDED = {key: each.permissions for key, each in BY_ROUTE.items()} | {
    ("GET", PREFIX + route): frozenset({"scaimind:view"}) for route in STREAMS
}
PUBLIC = {("GET", "/health"), ("GET", "/health/ready"), ("GET", "/metrics")}

route_of_the_api = pytest.mark.parametrize("route", NEEDED, ids=" ".join)


def ask_for(route: tuple[str, str]) -> Endpoint:
    """A valid request for the route."""
    method, path = route
    stream = Endpoint(
        method,
        path.removeprefix(PREFIX).replace("{job_id}", "job-1"),
        "WatchJob",
        *(ENDPOINTS[0].request, ENDPOINTS[0].response, {}),
    )
    return BY_ROUTE.get(route, stream)


def test_the_declarations_are_those_of_the_documentation(settings: Settings) -> None:
    declared = {
        (route.method, route.resource.canonical): access_of(route.handler).any_of
        for route in create_app(settings).router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert declared == {**NEEDED, **dict.fromkeys(PUBLIC, frozenset())}


@route_of_the_api
async def test_each_role_and_each_permission(gateway: Gateway, route: tuple[str, str]) -> None:
    # What is let in meets a coordinator that has nothing: 404 is a request that came through.
    for rpc in SERVICE.methods_by_name:
        gateway.coordinator.answer(rpc, Failure(StatusCode.NOT_FOUND, "there is nothing"))
    for name, key in gateway.keys.all.items():
        grants = ROLES.get(name, frozenset({name}))
        answer = await gateway.exchange(ask_for(route), key=key)
        if NEEDED[route] & grants:
            assert answer.status == 404, name
        else:
            assert answer.status == 403, name
            assert answer.error["code"] == "AUTHZ_PERMISSION_DENIED"
            assert all(needed in answer.error["message"] for needed in NEEDED[route])


@route_of_the_api
async def test_without_a_token_that_counts(gateway: Gateway, route: tuple[str, str]) -> None:
    endpoint = ask_for(route)
    for authorization, code in (
        ("", "AUTH_TOKEN_MISSING"),
        ("Basic YTpi", "AUTH_TOKEN_MISSING"),
        ("Bearer sgk_" + "x" * 43, "AUTH_TOKEN_INVALID"),
        ("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.", "AUTH_TOKEN_INVALID"),
        (f"Bearer {API_SECRET}", "AUTH_TOKEN_INVALID"),
    ):
        answer = await gateway.ask(
            endpoint.method,
            endpoint.url,
            json=endpoint.body,
            headers={"Authorization": authorization},
        )
        assert (answer.status, answer.error["code"]) == (401, code)
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith('Bearer realm="scaimind"')
        assert ("invalid_token" in challenge) is (code == "AUTH_TOKEN_INVALID")
    assert all(gateway.coordinator.requests(rpc) == [] for rpc in SERVICE.methods_by_name)


@pytest.mark.parametrize("path", [path for _, path in sorted(PUBLIC)])
async def test_what_is_public_asks_for_no_token(gateway: Gateway, path: str) -> None:
    answer = await gateway.ask("GET", path, headers={"Authorization": ""})
    assert answer.status == 200


async def test_a_tenant_in_a_query_or_a_body_counts_for_nothing(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", f"{PREFIX}/jobs", params={"tenant_id": "other"})
    assert answer.status == 422
    answer = await gateway.ask(
        "GET", f"{PREFIX}/jobs", headers={"X-Tenant-ID": "other", "X-User-ID": "root"}
    )
    [arrived] = gateway.coordinator.requests("ListJobs")
    assert arrived.metadata["x-tenant-id"] == "acme"
    assert arrived.metadata["x-user-id"] == "ann"


def test_a_route_that_declares_nothing_is_found() -> None:
    @public
    async def open_to_all(_: web.Request) -> web.Response:
        return web.Response()

    async def forgotten(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/open", open_to_all)
    check_declared(app.router.routes())
    app.router.add_get("/forgotten", forgotten)
    with pytest.raises(LookupError, match="forgotten"):
        check_declared(app.router.routes())


def test_requiring_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="public"):
        requires()


def test_any_one_of_the_permissions_is_enough() -> None:
    @requires(Permission.VIEW, Permission.EVALUATE)
    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    access = access_of(handler)
    assert access.permits({"scaimind:evaluate"})
    assert access.permits({"scaimind:view", "other:thing"})
    assert not access.permits({"scaimind:manage", "other:thing"})
    assert not access.permits(())
