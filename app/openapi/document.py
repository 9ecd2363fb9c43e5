"""The document: OpenAPI 3.1, of an application's routes and what their handlers declare."""

import re
import sys
from collections.abc import Iterable
from typing import Any

from aiohttp import hdrs, web

from app import __version__
from app.api.access import Access, access_of
from app.api.endpoint import Operation, operation_of
from app.api.paths import PATH_IDS, PathId
from app.openapi.responses import HEADERS, Responses
from app.openapi.schemas import JsonSchema, Schemas
from app.schemas.loading import NO_QUERY

_ABOUT = """\
ScaiMind's gateway: training jobs on a GPU cluster, over REST and Server-Sent Events.

Success is `{"data": ...}`. An error has a stable `code` to branch on; each operation lists those \
that it can answer with. Fields that are not described here may appear in answers."""

#: The query argument that a stream ticket comes in.
_TICKET = "ticket"

_VARIABLE = re.compile(r"\{(\w+)\}")


def build(routes: Iterable[web.AbstractRoute]) -> dict[str, Any]:
    """Describe the routes. Raises `LookupError` for a handler that declares nothing."""
    schemas = Schemas()
    responses = Responses(schemas)
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    routes = list(routes)
    read = {route.resource for route in routes if route.method == hdrs.METH_GET}
    for route in routes:
        declared = operation_of(route.handler)
        if route.resource is None or declared.page:
            continue
        if route.method == hdrs.METH_HEAD and route.resource in read:
            continue  # as GET, without its body
        path = route.resource.canonical
        section, about = _section(route.handler)
        tags[section] = about
        paths.setdefault(path, {})[route.method.lower()] = {
            "tags": [section],
            **_operation(route.handler, path, declared, schemas, responses),
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "ScaiMind", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in tags.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components(),
            "responses": responses.shared,
            "headers": HEADERS,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key (`sgk_...`) or a ScaiKey JWT. A requirement "
                    "names the permission that the token needs.",
                },
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": _TICKET,
                    "description": "A stream ticket, for clients that cannot send a header.",
                },
            },
        },
    }


def _operation(
    handler: Any, path: str, declared: Operation, schemas: Schemas, responses: Responses
) -> JsonSchema:
    access = access_of(handler)
    path_ids = _path_ids(path)
    summary, _, more = (handler.__doc__ or "").partition("\n")
    told: JsonSchema = {"operationId": handler.__name__, "summary": summary.rstrip(".")}
    if more.strip():
        told["description"] = more.strip()
    told["security"] = _security(access)
    told["parameters"] = [
        *(_path_parameter(each) for each in path_ids),
        *(
            parameter
            for parameter in schemas.parameters(declared.query or NO_QUERY, location="query")
            # It is told as what it is: a way to come in.
            if access.ticket is None or parameter["name"] != _TICKET
        ),
        *(schemas.parameters(declared.headers, location="header") if declared.headers else ()),
    ]
    if declared.body is not None:
        told["requestBody"] = {
            "required": not declared.body_optional,
            "content": {
                media_type: {"schema": schemas.of(declared.body)}
                for media_type in declared.body_types
            },
        }
    if declared.raw_body:
        told["requestBody"] = {
            "required": False,
            "content": {media_type: {"schema": {}} for media_type in declared.raw_body},
        }
    told["responses"] = responses.of(declared, access, path_ids)
    return told


def _security(access: Access) -> list[JsonSchema]:
    either: list[JsonSchema] = [
        {"bearer": [str(permission)]} for permission in sorted(access.any_of)
    ]
    return either if access.ticket is None else [*either, {"ticket": []}]


def _path_ids(path: str) -> list[PathId]:
    return [PATH_IDS[name] for name in _VARIABLE.findall(path)]


def _path_parameter(path_id: PathId) -> JsonSchema:
    return {
        "in": "path",
        "name": path_id.name,
        "required": True,
        "schema": {"type": "string", "pattern": f"^{path_id.form}$"},
    }


def _section(handler: Any) -> tuple[str, str]:
    """Return the section of a handler's module and its description."""
    module = sys.modules[handler.__module__]
    return module.__name__.rpartition(".")[2], (module.__doc__ or "").partition("\n")[0]
