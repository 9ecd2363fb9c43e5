"""What an operation takes and answers, declared once: at its handler.

`@Operation(...)` reads the request as declared before the handler runs, and
`app.openapi` describes the operation by the same declaration.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeAlias

from aiohttp import web
from marshmallow import Schema

from app.api.bodies import read_object
from app.errors import ErrorKind
from app.schemas.loading import NO_QUERY, load_body, load_headers, load_query
from app.schemas.streams.events import EVENT_ID
from app.telemetry.audit import Action

JsonObject: TypeAlias = dict[str, Any]
Handle: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_QUERY: web.RequestKey[JsonObject] = web.RequestKey("query", dict)
_HEADERS: web.RequestKey[JsonObject] = web.RequestKey("headers", dict)
_BODY: web.RequestKey[JsonObject] = web.RequestKey("body", dict)

_ATTRIBUTE = "operation"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Event:
    """A kind of event on a stream; its data is that of a schema or of a message, named."""

    name: str
    text: str
    data: Schema | str
    #: The form of its id; None if it has none.
    id_form: str | None = EVENT_ID
    #: What its data has beside that.
    beside: Schema | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The declaration, and the decorator that makes it. Exactly one of the answers is given:
    `answer`, `events`, `content` or `without_content`, or else that of `rpc`.
    """

    #: The coordinator's method behind it; its answer is this one's unless another is given.
    rpc: str | None = None
    #: The answer's `data`.
    answer: Schema | None = None
    #: What the answer's `data` may be besides.
    or_answer: Schema | None = None
    #: The answer's `meta`, which may be left out.
    meta: Schema | None = None
    #: The answer is a stream of these.
    events: tuple[Event, ...] = ()
    #: Media types that the stream can have besides.
    also: tuple[str, ...] = ()
    #: The answer has one of these media types, and no envelope.
    content: tuple[str, ...] = ()
    #: The answer is its status and its headers.
    without_content: bool = False
    #: With which the answer comes; 204 and 304 come without it.
    statuses: tuple[int, ...] = (200,)
    #: The answers' `data` for statuses that come with another one.
    other_answers: Mapping[int, Schema] = field(default_factory=dict)
    #: Errors that follow neither from the access, nor from what is taken, nor from `rpc`.
    errors: tuple[ErrorKind, ...] = ()
    #: None lets any query pass unread.
    query: Schema | None = NO_QUERY
    headers: Schema | None = None
    body: Schema | None = None
    body_optional: bool = False
    #: The media types that a body may have; what is JSON is taken in any case.
    body_types: tuple[str, ...] = ("application/json",)
    #: The body is of one of these media types, and read by the handler; it may be empty.
    raw_body: tuple[str, ...] = ()
    #: A page for people, that the API's document does not describe.
    page: bool = False
    #: What it changes, for the audit trail; None if it only reads.
    action: Action | None = None

    def __call__(self, handler: Handle) -> Handle:
        """Have the handler called once a request has been read; `ApiError` if it does not fit."""

        @wraps(handler)
        async def handle(request: web.Request) -> web.StreamResponse:
            if self.query is not None:
                request[_QUERY] = load_query(self.query, request.query)
            if self.headers is not None:
                request[_HEADERS] = load_headers(self.headers, request.headers)
            if self.body is not None:
                body = await read_object(request, optional=self.body_optional)
                request[_BODY] = load_body(self.body, body)
            return await handler(request)

        setattr(handle, _ATTRIBUTE, self)
        return handle


def operation_of(handler: Any) -> Operation:
    """Return what a handler declares. Raises `LookupError` if it declares nothing."""
    declared = getattr(handler, _ATTRIBUTE, None)
    if not isinstance(declared, Operation):
        name = getattr(handler, "__qualname__", repr(handler))
        raise LookupError(f"{name} declares no @Operation(...)")
    return declared


def is_stream(handler: Any) -> bool:
    """Whether a handler answers with events."""
    declared = getattr(handler, _ATTRIBUTE, None)
    return isinstance(declared, Operation) and bool(declared.events)


def action_of(handler: Any) -> Action | None:
    """Return what a handler changes; None if it only reads, or declares nothing."""
    declared = getattr(handler, _ATTRIBUTE, None)
    return declared.action if isinstance(declared, Operation) else None


def method_of(request: web.BaseRequest) -> str:
    """Name the method, so that there are only so many names."""
    return request.method if request.method in _METHODS else "OTHER"


def route_of(request: web.Request) -> str:
    """Name the route as it is declared, so that there are only so many names."""
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical


def query_of(request: web.Request) -> JsonObject:
    """Return the query as its schema loads it."""
    return request[_QUERY]


def headers_of(request: web.Request) -> JsonObject:
    """Return the declared headers as their schema loads them."""
    return request[_HEADERS]


def body_of(request: web.Request) -> JsonObject:
    """Return the body as its schema loads it."""
    return request[_BODY]
