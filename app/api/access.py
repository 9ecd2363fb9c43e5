"""What a route demands of its caller, declared at the handler.

Every handler carries exactly one declaration, `@requires(...)` or `@public`;
`check_declared` refuses an application in which one lacks it.

A ticket beside an Authorization header is refused: whichever took precedence,
somebody would be surprised about the stream's user. Streams do not support HEAD,
which would open one and use up a ticket.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from aiohttp import web

from app.auth.tickets import Opens, StreamKind
from app.scaikey.permissions import Permission

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[web.StreamResponse]])

OpenedBy: TypeAlias = Callable[[web.Request], Opens]

_ATTRIBUTE = "access"


@dataclass(frozen=True, slots=True)
class Access:
    """Any one of the permissions opens the route; none at all means that it is public."""

    any_of: frozenset[Permission]
    #: What a ticket must open to be taken in place of a token, by the request; None if none is.
    #: May raise `ApiError` where the request does not say.
    ticket: OpenedBy | None = None

    @property
    def public(self) -> bool:
        """Whether no token is needed."""
        return not self.any_of

    def permits(self, permissions: Iterable[str]) -> bool:
        """Return whether a caller with these permissions may pass."""
        return self.public or not self.any_of.isdisjoint(permissions)


#: Of routes that are open to all.
PUBLIC = Access(frozenset())


def requires(*any_of: Permission, ticket: OpenedBy | None = None) -> Callable[[Handler], Handler]:
    """Demand a token, or a ticket for what the request opens, with one of these permissions."""
    if not any_of:
        raise ValueError("name at least one permission, or use @public")
    return _declare(Access(frozenset(any_of), ticket))


def stream_of_job(kind: StreamKind) -> OpenedBy:
    """Demand a ticket for the stream of this kind of the job in the path."""
    return lambda request: Opens(kind, request.match_info["job_id"])


def public(handler: Handler) -> Handler:
    """Let anyone in, without a token."""
    return _declare(PUBLIC)(handler)


def access_of(handler: Any) -> Access:
    """Return what a handler declares. Raises `LookupError` if it declares nothing."""
    access = getattr(handler, _ATTRIBUTE, None)
    if not isinstance(access, Access):
        name = getattr(handler, "__qualname__", repr(handler))
        raise LookupError(f"{name} declares neither @requires(...) nor @public")
    return access


def check_declared(routes: Iterable[web.AbstractRoute]) -> None:
    """Raise `LookupError` if the handler of one of the routes declares nothing."""
    for route in routes:
        access_of(route.handler)


def _declare(access: Access) -> Callable[[Handler], Handler]:
    def declare(handler: Handler) -> Handler:
        setattr(handler, _ATTRIBUTE, access)
        return handler

    return declare
