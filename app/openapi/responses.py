"""What an operation can answer: its success, and every error that can meet it."""

from collections.abc import Iterable
from http import HTTPStatus
from itertools import groupby

from app import errors
from app.api.access import Access
from app.api.endpoint import Event, Operation
from app.api.paths import PathId
from app.bridge.errors import kinds_of
from app.bridge.json_schema import answer_of
from app.errors import ErrorKind
from app.openapi.schemas import JsonSchema, Schemas
from app.schemas.envelope import ERROR_ENVELOPE

#: What the HTTP server itself refuses is among them.
_OF_ANY = (
    errors.MALFORMED_REQUEST,
    errors.REQUEST_TIMEOUT,
    errors.URI_TOO_LONG,
    errors.EXPECTATION_FAILED,
    errors.HEADERS_TOO_LARGE,
    errors.INTERNAL_ERROR,
)
_OF_TOKENS = (
    errors.AUTH_TOKEN_MISSING,
    errors.AUTH_TOKEN_INVALID,
    errors.AUTHZ_PERMISSION_DENIED,
    errors.AUTH_UNAVAILABLE,
    errors.RATE_LIMITED,
)
_OF_BODIES = (
    errors.PAYLOAD_TOO_LARGE,
    errors.UNSUPPORTED_MEDIA_TYPE,
)

_WITHOUT_CONTENT = (204, 304)

#: The codes that an answer can have, for programs; an extension of OpenAPI's Response Object.
ERROR_CODES = "x-error-codes"

HEADERS: dict[str, JsonSchema] = {
    "X-Request-ID": {
        "description": "Id of the request in the log.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait before trying again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}},
}


def errors_of(
    operation: Operation, access: Access, path_ids: Iterable[PathId]
) -> frozenset[ErrorKind]:
    """Return every error that an operation can answer with."""
    found = {*_OF_ANY, *operation.errors}
    if not access.public:
        found.update(_OF_TOKENS)
    if access.ticket is not None:
        found.add(errors.AUTH_TICKET_INVALID)
    if operation.query is not None or operation.headers is not None or operation.body is not None:
        found.add(errors.VALIDATION_ERROR)
    if operation.body is not None:
        found.update(_OF_BODIES)
    if operation.rpc is not None:
        found.update(kinds_of(operation.rpc))
    found.update(each.missing for each in path_ids)
    return frozenset(found)


class Responses:
    """Describes the answers, those that several operations share as components."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self.shared: dict[str, JsonSchema] = {}

    def of(
        self, operation: Operation, access: Access, path_ids: Iterable[PathId]
    ) -> dict[str, JsonSchema]:
        """Describe all answers of an operation, by status. Raises `LookupError` if two have one."""
        found = {str(status): self._success(operation, status) for status in operation.statuses}
        by_status = sorted(errors_of(operation, access, path_ids), key=lambda kind: kind.status)
        for status, kinds in groupby(by_status, key=lambda kind: kind.status):
            if status in operation.statuses:
                raise LookupError(f"{status} is both an answer and an error")
            found[str(status)] = self._failure(status, sorted(kinds, key=lambda kind: kind.code))
        return found

    def _success(self, operation: Operation, status: int) -> JsonSchema:
        told: JsonSchema = {
            "description": HTTPStatus(status).phrase,
            "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
        }
        if status not in _WITHOUT_CONTENT and not operation.without_content:
            told["content"] = self._content(operation, status)
        return told

    def _content(self, operation: Operation, status: int) -> JsonSchema:
        if operation.events:
            also: JsonSchema = {name: {"schema": {"type": "string"}} for name in operation.also}
            return {"text/event-stream": self._stream(operation), **also}
        if operation.content:
            return {media_type: {"schema": {}} for media_type in operation.content}
        answer = operation.other_answers.get(status, operation.answer)
        if answer is not None:
            data = self._schemas.of(answer)
        else:
            assert operation.rpc is not None, "an operation has an answer"
            data = self._schemas.of_message(answer_of(operation.rpc))
        if operation.or_answer is not None:
            data = {"anyOf": [data, self._schemas.of(operation.or_answer)]}
        envelope: JsonSchema = {
            "type": "object",
            "properties": {"data": data},
            "required": ["data"],
        }
        if operation.meta is not None:
            envelope["properties"]["meta"] = self._schemas.of(operation.meta)
        return {"application/json": {"schema": envelope}}

    def _stream(self, operation: Operation) -> JsonSchema:
        """Describe one event of a stream, in the shape that OpenAPI 3.2 gives to `itemSchema`.

        3.1 does not say what a schema of `text/event-stream` is about; tools
        take it for one event.
        """
        return {"schema": {"oneOf": [self._event(event) for event in operation.events]}}

    def _event(self, event: Event) -> JsonSchema:
        data = (
            self._schemas.of_message(event.data)
            if isinstance(event.data, str)
            else self._schemas.of(event.data)
        )
        if event.beside is not None:
            data = {"allOf": [self._schemas.of(event.beside), data]}
        place: JsonSchema = {}
        if event.id_form is not None:
            place["id"] = {"type": "string", "pattern": f"^{event.id_form}$"}
        return {
            "type": "object",
            "title": event.name,
            "description": event.text,
            "properties": {
                "event": {"const": event.name},
                **place,
                "retry": {
                    "type": "integer",
                    "description": "Reconnection delay in milliseconds.",
                },
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": data,
                },
            },
            "required": ["event", *place, "data"],
        }

    def _failure(self, status: int, kinds: list[ErrorKind]) -> JsonSchema:
        name = ".".join(kind.code for kind in kinds)
        if name not in self.shared:
            headers = ["X-Request-ID"]
            if status == 401:
                headers.append("WWW-Authenticate")
            if any(kind.retryable for kind in kinds):
                headers.append("Retry-After")
            self.shared[name] = {
                "description": "\n".join(f"- `{kind.code}`: {_plain(kind.text)}" for kind in kinds),
                "headers": {each: {"$ref": f"#/components/headers/{each}"} for each in headers},
                # The schema itself, and not one that narrows it to these codes: generators make
                # a type of their own of each, and a client would have hundreds of errors.
                "content": {"application/json": {"schema": self._schemas.of(ERROR_ENVELOPE)}},
                ERROR_CODES: [kind.code for kind in kinds],
            }
        return {"$ref": f"#/components/responses/{name}"}


def _plain(text: str) -> str:
    """Keep what Markdown would take for HTML."""
    return text.replace("<", r"\<")
