"""Who may do what: every route with every role, every single permission, and no token at all."""

from collections.abc import Mapping
from itertools import combinations

import pytest
from aiohttp import web
from grpc import StatusCode

from app.api.access import access_of, check_declared, public, requires
from app.database.connection import connected
from app.gateway.routes import add_routes
from app.scaikey.api_keys import create_key
from app.scaikey.permissions import ROLES, Permission
from tests.api.conftest import API_SECRET, Gateway, Keys
from tests.api.endpoints import (
    ALL,
    CACHED,
    DRIVE,
    ENDPOINTS,
    MANAGE,
    OWN,
    PREFIX,
    STREAMS,
    SUMMARY_OF_METRICS,
    TICKETS,
    VIEW,
    Endpoint,
)
from tests.scripted_coordinator import SERVICE, Failure

BY_ROUTE = {(each.method, PREFIX + each.route): each for each in ENDPOINTS}
#: What the documentation says of every route: any one of these permissions.
NEEDED = (
    {route: each.permissions for route, each in BY_ROUTE.items()}
    | {("GET", PREFIX + route): VIEW for route in (*STREAMS, *CACHED, SUMMARY_OF_METRICS)}
    | {("POST", PREFIX + TICKETS): VIEW}
    | {(method, PREFIX + route): ALL for (method, route) in OWN}
    | {route: needed for route, (needed, _, _) in DRIVE.items()}
)
#: What a request needs beside its path.
QUERIES = {
    "/jobs/{job_id}/logs/search": {"contains": "x"},
    SUMMARY_OF_METRICS: {"job_id": "job-1"},
}
#: What is open to all.
PUBLIC = {
    ("POST", f"{PREFIX}/console-sessions"),
    ("GET", "/health"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/"),
    ("GET", "/console"),
    ("GET", "/console/{path}"),
    ("GET", "/console-files/{path}"),
    ("GET", "/version"),
    ("GET", f"{PREFIX}/openapi.json"),
    ("GET", f"{PREFIX}/docs"),
    ("GET", f"{PREFIX}/docs/{{asset}}"),
    ("OPTIONS", "/v1/drive-uploads/"),
}

#: What a key can be given: roles, and permissions one by one.
Grants = tuple[tuple[str, ...], tuple[str, ...]]
_SUBSETS = [
    subset
    for size in range(len(Permission) + 1)
    for subset in combinations((each.value for each in Permission), size)
]
GRANTS: list[Grants] = (
    [((role,), ()) for role in ROLES]
    + [((), subset) for subset in _SUBSETS]
    + [((role,), (permission.value,)) for role in ROLES for permission in Permission]
    + [(("tenant_viewer", "tenant_user"), ()), (("emperor",), ()), ((), ("other:manage",))]
)


def routes() -> list[tuple[str, str]]:
    """Every route, from the table that the application is made with."""
    app = web.Application()
    add_routes(app)
    return [
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    ]


route_of_the_api = pytest.mark.parametrize(
    "route", [route for route in routes() if route not in PUBLIC], ids=" ".join
)


def ask_for(route: tuple[str, str]) -> Endpoint:
    """A valid request for the route."""
    method, path = route
    if route in DRIVE:
        path = DRIVE[route][1]
    other = Endpoint(
        method,
        path.removeprefix(PREFIX).replace("{job_id}", "job-1"),
        "WatchJob",
        *(ENDPOINTS[0].request, ENDPOINTS[0].response, {}),
        query=QUERIES.get(path.removeprefix(PREFIX), {}),
        body={"job_id": "job-1", "kind": "logs"} if path == PREFIX + TICKETS else None,
    )
    return BY_ROUTE.get(route, other)


def granted_by(grants: Grants) -> frozenset[str]:
    """What the platform's table says, written down once more."""
    roles, permissions = grants
    given = set(permissions)
    if {"super_admin", "partner_admin", "tenant_admin"} & set(roles):
        given |= {permission.value for permission in Permission}
    if "tenant_viewer" in roles:
        given.add("scaimind:view")
    return frozenset(given)


@pytest.fixture(scope="session")
def key_of(keys: Keys) -> Mapping[Grants, str]:
    """A key for each of `GRANTS`, as the table of keys has them."""
    made: dict[Grants, str] = {}
    with connected(keys.dsn) as connection, connection.cursor() as cursor:
        for grants in GRANTS:
            roles, permissions = grants
            new = create_key(keys.dsn, tenant_id="acme", user_id="ann", roles=["tenant_user"])
            # By hand: keys of roles that are not known are not made.
            cursor.execute(
                "UPDATE mod_scaimind_api_keys SET roles = %s, permissions = %s WHERE key_id = %s",
                (list(roles), list(permissions), new.key.key_id),
            )
            made[grants] = new.secret
    return made


def test_every_route_is_documented_and_declares_what_is_documented() -> None:
    app = web.Application()
    add_routes(app)
    declared = {
        (route.method, route.resource.canonical): access_of(route.handler).any_of
        for route in app.router.routes()
        if route.resource is not None
    }
    documented = {**NEEDED, **dict.fromkeys(PUBLIC, frozenset[str]())}
    documented |= {
        ("HEAD", path): needed
        for (method, path), needed in documented.items()
        if method == "GET" and not path.endswith(STREAMS)
    }
    documented["HEAD", "/v1/drive-uploads/{upload_id}"] = MANAGE
    assert declared == documented


@route_of_the_api
async def test_every_role_every_permission_and_their_combinations(
    gateway: Gateway, key_of: Mapping[Grants, str], route: tuple[str, str]
) -> None:
    for rpc in SERVICE.methods_by_name:
        gateway.coordinator.answer(rpc, Failure(StatusCode.NOT_FOUND, "there is nothing"))
    endpoint = ask_for(route)
    for grants, key in key_of.items():
        asked = sum(len(gateway.coordinator.requests(rpc)) for rpc in SERVICE.methods_by_name)
        answer = await gateway.exchange(endpoint, key=key)
        reached = asked < sum(
            len(gateway.coordinator.requests(rpc)) for rpc in SERVICE.methods_by_name
        )
        if NEEDED[route] & granted_by(grants):
            # The coordinator has nothing; some the gateway answers by itself.
            own = OWN.get((endpoint.method, endpoint.route), 200 if endpoint.route in CACHED else 0)
            own = DRIVE[route][2] if route in DRIVE else own
            expected = (own, False) if own else (404, True)
            if endpoint.route == SUMMARY_OF_METRICS:
                expected = (200, True)
            assert (answer.status, reached) == expected, grants
        else:
            assert (answer.status, reached) == (403, False), grants
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


@pytest.mark.parametrize("route", sorted(PUBLIC))
async def test_what_is_public_asks_for_no_token(gateway: Gateway, route: tuple[str, str]) -> None:
    method, path = route
    asked = path.replace("{asset}", "none.js").replace("-files/{path}", "-files/main.js")
    answer = await gateway.ask(method, asked, headers={"Authorization": ""})
    if method == "POST":
        assert answer.error["code"] == "MALFORMED_REQUEST"  # it has no body
    else:
        expected = {"OPTIONS": 204}.get(method, 404 if "{asset}" in path else 200)
        assert answer.status == expected


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
