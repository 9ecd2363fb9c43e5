"""The document is valid, complete, and says of answers what they are."""

import copy
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no stubs
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.api.access import public
from app.api.endpoint import Operation, operation_of
from app.api.envelope import failure
from app.bridge.converters import to_json
from app.bridge.errors import kinds_of
from app.errors import CATALOGUE, ApiError, FieldProblem
from app.gateway.routes import add_routes
from app.hub.core import frames
from app.hub.upstream import Position
from app.openapi.document import build
from app.openapi.responses import ERROR_CODES
from app.schemas.loading import load_body
from tests.api.endpoints import ENDPOINTS, PREFIX, STREAMS
from tests.bridge.messages import messages
from tests.scripted_coordinator import SERVICE, type_of

Json = dict[str, Any]

METHODS = SERVICE.methods_by_name


@pytest.fixture(scope="module")
def routes() -> list[web.AbstractRoute]:
    app = web.Application()
    add_routes(app)
    return list(app.router.routes())


@pytest.fixture(scope="module")
def document(routes: list[web.AbstractRoute]) -> Json:
    # As a client gets it.
    built: Json = orjson.loads(orjson.dumps(build(routes)))
    return built


def strict(document: Json) -> Json:
    """A copy that refuses every field that it does not name."""
    closed = copy.deepcopy(document)
    for schema in closed["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return closed


def problems(document: Json, schema: Json, value: Any) -> list[str]:
    whole = {**schema, "components": document["components"]}
    validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(value)]


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_it_is_valid(document: Json) -> None:
    assert document["openapi"] == "3.1.0"
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_it_has_every_route(document: Json, routes: list[web.AbstractRoute]) -> None:
    read = {route.resource for route in routes if route.method == "GET"}
    described = {(method, path) for method, path, _ in operations(document)}
    assert described == {
        (route.method, route.resource.canonical)
        for route in routes
        if route.resource is not None
        and (route.method != "HEAD" or route.resource not in read)
        and not operation_of(route.handler).page
    }
    assert described >= {(each.method, PREFIX + each.route) for each in ENDPOINTS}
    assert described >= {("GET", PREFIX + route) for route in STREAMS}
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_a_route_that_declares_nothing_is_refused() -> None:
    @public
    async def forgotten(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/forgotten", forgotten)
    with pytest.raises(LookupError, match=r"forgotten declares no @Operation"):
        build(app.router.routes())


def test_a_path_with_an_unknown_variable_is_refused() -> None:
    @public
    @Operation(rpc="GetJob")
    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/{what}", handler)
    with pytest.raises(LookupError, match="what"):
        build(app.router.routes())


def test_each_operation_declares_the_call_that_it_makes(routes: list[web.AbstractRoute]) -> None:
    declared = {
        (route.method, route.resource.canonical): operation_of(route.handler)
        for route in routes
        if route.resource is not None
    }
    for endpoint in ENDPOINTS:
        operation = declared[endpoint.method, PREFIX + endpoint.route]
        assert operation.rpc == endpoint.rpc, endpoint
        usual = set(operation.statuses) - {304, *operation.other_answers}
        assert usual == {endpoint.status}, endpoint
        assert operation.body_optional == endpoint.body_optional, endpoint


def test_each_operation_tells_how_its_call_can_fail(
    document: Json, routes: list[web.AbstractRoute]
) -> None:
    for route in routes:
        declared = operation_of(route.handler)
        if declared.rpc is None or route.method == "HEAD":
            continue
        assert route.resource is not None
        told = document["paths"][route.resource.canonical][route.method.lower()]["responses"]
        assert set(told) >= {"401", "403", "422", "429", "500", "501", "503", "504"}
        for kind in kinds_of(declared.rpc):
            name = told[str(kind.status)]["$ref"].rpartition("/")[2]
            shared = document["components"]["responses"][name]
            assert kind.code in shared[ERROR_CODES], (route, kind)


def test_all_errors_are_one_schema(document: Json) -> None:
    """A generator makes a type of each schema that is written out where it is used."""
    named = {"$ref": "#/components/schemas/ErrorEnvelopeSchema"}
    failed = [
        (method, path, status)
        for method, path, operation in operations(document)
        for status, response in operation["responses"].items()
        # What is written out at its operation is an answer, such as that of a gateway that is
        # not ready (503).
        if status >= "400" and set(response) != {"$ref"} and "data" not in str(response["content"])
    ]
    assert failed == []
    for name, shared in document["components"]["responses"].items():
        assert shared["content"] == {"application/json": {"schema": named}}, name


def test_each_error_has_its_codes_for_people_and_programs(document: Json) -> None:
    for shared in document["components"]["responses"].values():
        assert shared[ERROR_CODES] == sorted(shared[ERROR_CODES])
        for code in shared[ERROR_CODES]:
            assert f"- `{code}`: " in shared["description"]


def test_every_error_of_the_catalogue_is_somewhere(document: Json) -> None:
    told = {
        code
        for shared in document["components"]["responses"].values()
        for code in shared[ERROR_CODES]
    }
    # No operation answers with these: they are said of requests that meet none, on streams that
    # have begun, and of calls that the contract gives no such answer.
    elsewhere = {"ROUTE_NOT_FOUND", "METHOD_NOT_ALLOWED", "AUTH_EXPIRED", "JOB_DELETED"}
    assert told >= set(CATALOGUE) - elsewhere


def test_permissions_are_told(document: Json) -> None:
    needed = {
        (method, path): operation["security"] for method, path, operation in operations(document)
    }
    for endpoint in ENDPOINTS:
        told = needed[endpoint.method, PREFIX + endpoint.route]
        assert {scope for each in told for scope in each["bearer"]} == endpoint.permissions
    assert needed["GET", "/health"] == []
    assert needed["GET", f"{PREFIX}/openapi.json"] == []
    assert needed["GET", f"{PREFIX}/jobs/{{job_id}}/logs"] == [
        {"bearer": ["scaimind:view"]},
        {"ticket": []},
    ]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_any_answer_of_the_coordinator_fits_its_schema(document: Json, method: str) -> None:
    message = METHODS[method].output_type.name
    if message not in document["components"]["schemas"]:
        assert method in {
            "DeleteJob",
            "GetLogMarks",
            "ListJobLogs",
            "SearchJobLogs",
            "WatchJob",
            "WatchJobs",
        }
        return
    closed = strict(document)

    @settings(derandomize=True, max_examples=25, database=None)
    @given(messages(type_of(METHODS[method].output_type)))
    def check(answer: Any) -> None:
        told = orjson.loads(orjson.dumps(to_json(answer)))
        reference = {"$ref": f"#/components/schemas/{message}"}
        assert problems(closed, reference, told) == []

    check()


def test_what_the_schemas_of_answers_refuse(document: Json) -> None:
    job = {"$ref": "#/components/schemas/ListJobsResponse"}
    good: Json = {"jobs": [], "next_page_token": "", "total_count": 0}
    assert problems(document, job, good) == []
    for bad in (
        {"jobs": [], "next_page_token": ""},
        {**good, "total_count": "0"},
        {**good, "jobs": [{"job_id": "x"}]},
        {**good, "jobs": None},
    ):
        assert problems(document, job, bad), bad


@pytest.mark.parametrize("kind", CATALOGUE.values(), ids=lambda kind: kind.code)
def test_every_error_fits_its_schema(document: Json, kind: Any) -> None:
    details = [FieldProblem("name", "Missing.")] if kind.code == "VALIDATION_ERROR" else []
    answer = failure(ApiError(kind, details=details, retry_after=5), request_id="req_1")
    assert isinstance(answer.body, bytes)
    envelope = {"$ref": "#/components/schemas/ErrorEnvelopeSchema"}
    assert problems(strict(document), envelope, orjson.loads(answer.body)) == []


def test_each_event_of_the_hub_fits_a_schema(document: Json) -> None:
    at, shared = Position("e1", 7), CATALOGUE["SHUTTING_DOWN"]
    framed = {
        "bookmark": [frames.bookmark(at), frames.bookmark(at, retry_ms=2000)],
        "gap": [
            frames.gap(start=at, end=at, reason="dropped", position=at),
            frames.gap(start=at, end=None, reason="unknown_epoch", position=at),
        ],
        "end": [frames.end(at, "COMPLETED")],
        "error": [frames.error(shared, retryable=True, position=at, retry_ms=1)],
    }
    for path, own in (("logs", "log"), ("metrics/stream", "metrics")):
        operation = document["paths"][f"{PREFIX}/jobs/{{job_id}}/{path}"]["get"]
        content = operation["responses"]["200"]["content"]["text/event-stream"]
        told = {each["title"]: each for each in content["schema"]["oneOf"]}
        assert set(told) == {"bookmark", "gap", "end", "error", own}
        for name in set(told) & set(framed):
            for frame in framed[name]:
                event: Json = dict(
                    line.split(": ", 1) for line in frame.decode().rstrip("\n").split("\n")
                )
                if "retry" in event:
                    event["retry"] = int(event["retry"])
                assert problems(document, told[name], event) == []
                data = told[name]["properties"]["data"]["contentSchema"]
                assert problems(strict(document), data, orjson.loads(event["data"])) == []


def test_examples_are_valid_for_us_and_for_the_document(
    document: Json, routes: list[web.AbstractRoute]
) -> None:
    found = 0
    for route in routes:
        body = operation_of(route.handler).body
        if body is None or (example := getattr(body, "EXAMPLE", None)) is None:
            continue
        found += 1
        load_body(body, example)
        schema = {"$ref": f"#/components/schemas/{type(body).__name__}"}
        assert problems(document, schema, example) == []
        assert problems(document, schema, {**example, "nonsense": 1})
    assert found == 4
