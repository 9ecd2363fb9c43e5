"""What every call passes: the shared secret, numbers of enums, the tenant, and errors in the
contract's words."""

import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
import grpc.aio
import structlog
from typing_extensions import override

from app.coordinator.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    Overloaded,
    PermissionDenied,
    RequestError,
    Unauthenticated,
    Unavailable,
)
from app.coordinator.failures import LeadershipLost, StoreUnavailable, is_passing, reason_of
from app.coordinator.identity.peer import Peer
from app.coordinator.identity.tenant_ids import TENANT
from app.coordinator.service.bad_request import bad_request
from app.coordinator.service.enum_numbers import check_enum_numbers
from app.coordinator.service.serving.open_streams import OpenStreams
from app.coordinator.service.status_details import error_info
from app.credentials import masked
from app.objects.store import DriveUnavailable
from app.shortening import shortened

_CODES: Final[dict[type[RequestError], grpc.StatusCode]] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Aborted: grpc.StatusCode.ABORTED,
    NotImplementedHere: grpc.StatusCode.UNIMPLEMENTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}
#: Characters of a refusal, and of one that is not ASCII, which gRPC writes several times as long:
#: with the fields that it names it must fit into 8 KiB of metadata.
_MAX_DETAIL: Final = 1500
_MAX_DETAIL_ENCODED: Final = 450
#: Of a user's id, in characters, as gateways have it.
_MAX_USER: Final = 256
#: Health and reflection tell nothing of any tenant.
OPEN: Final = ("/grpc.health.", "/grpc.reflection.")

log = structlog.get_logger("scaimind.coordinator")

if TYPE_CHECKING:
    # Generic in the stubs, not at run time.
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any] | None
else:
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler | None


def peer_of(context: Context) -> Peer:
    """Who calls. Raises InvalidArgument."""
    metadata = metadata_of(context)
    tenant_id = metadata.get("x-tenant-id", "")
    if not TENANT.fullmatch(tenant_id):
        raise InvalidArgument(
            "x-tenant-id", "this metadata must name the tenant: letters, digits, and any of @._+-"
        )
    user_id = metadata.get("x-user-id", "")
    if len(user_id) > _MAX_USER:
        raise InvalidArgument(
            "x-user-id", f"this metadata must have at most {_MAX_USER} characters"
        )
    return Peer(tenant_id, user_id)


def metadata_of(context: Context) -> dict[str, str]:
    """The metadata of a call that is text."""
    return texts_of(context.invocation_metadata())


def texts_of(metadata: Any) -> dict[str, str]:
    """The values of metadata that are text; of several under one key, the last."""
    return {key: value for key, value in metadata or () if isinstance(value, str)}


class ApiSecretInterceptor(grpc.aio.ServerInterceptor):
    """Lets in who knows the secret, and turns what is raised into a status."""

    def __init__(self, *, api_secret: str, streams: OpenStreams) -> None:
        """All streams are among `streams`."""
        self._secret = api_secret.encode()
        self._streams = streams

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method or ""
        if handler is None:
            return handler
        if method.startswith(OPEN):
            return self._open(handler)
        given = texts_of(handler_call_details.invocation_metadata).get("x-api-secret", "")
        admitted = hmac.compare_digest(given.encode(), self._secret)
        name = method.rpartition("/")[2]
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _stream(name, handler.unary_stream, self._streams, admitted=admitted),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _unary(name, handler.unary_unary, admitted=admitted),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _open(self, handler: Any) -> Handler:
        if handler.unary_stream is None:
            unchanged: Handler = handler
            return unchanged

        async def call(request: Any, context: Context) -> None:
            await self._streams.served(handler.unary_stream(request, context), context)

        return grpc.unary_stream_rpc_method_handler(
            call,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _unary(name: str, behavior: Any, *, admitted: bool) -> Any:
    async def call(request: Any, context: Context) -> Any:
        if not admitted:
            await _turn_away(context)
        try:
            check_enum_numbers(request)
            return await behavior(request, context)
        except RequestError as refused:
            await _refuse(context, refused)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # reported, then hidden
            await _hide(name, error, context)

    return call


def _stream(name: str, behavior: Any, streams: OpenStreams, *, admitted: bool) -> Any:
    async def call(request: Any, context: Context) -> None:
        if not admitted:
            await _turn_away(context)
        try:
            check_enum_numbers(request)
            messages: AsyncGenerator[Any, None] = behavior(request, context)
            # Closed here and now when the caller goes away, not when it is collected.
            async with streams.one(context), aclosing(messages):
                async for message in messages:
                    try:
                        await context.write(message)
                    except grpc.aio.InternalError:
                        # Nothing more can be sent: the caller left while this was on its way.
                        return
        except RequestError as refused:
            await _refuse(context, refused)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # reported, then hidden
            await _hide(name, error, context)

    return call


async def _refuse(context: Context, refused: RequestError) -> NoReturn:
    """End a call with what was raised: the caller reads it, and no credential in it."""
    code, detail = _CODES[type(refused)], masked(str(refused))
    detail = shortened(detail, _MAX_DETAIL if detail.isascii() else _MAX_DETAIL_ENCODED)
    if isinstance(refused, InvalidArgument):
        await context.abort(code, detail, bad_request(detail, refused.problems))
    if isinstance(refused, Unauthenticated) and refused.reason:
        await context.abort(code, detail, error_info(code, detail, refused.reason))
    await context.abort(code, detail)


async def _turn_away(context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the API secret is wrong")


async def _hide(name: str, error: Exception, context: Context) -> NoReturn:
    """End a call that failed. The operators see all of the error, the caller only its kind."""
    if isinstance(error, LeadershipLost):
        await context.abort(
            grpc.StatusCode.UNAVAILABLE, "this coordinator no longer leads; another one may"
        )
    if isinstance(error, StoreUnavailable):
        log.warning("call_not_possible", method=name, exc_info=error)
        await context.abort(
            grpc.StatusCode.UNAVAILABLE, "the coordinator's database is away; try again later"
        )
    if isinstance(error, DriveUnavailable):
        log.warning("call_not_possible", method=name, exc_info=error)
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"{error.strerror}; try again later")
    if is_passing(error):
        log.warning("call_not_possible", method=name, exc_info=error)
        await context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the coordinator has reached a limit of its machine: {reason_of(error)}; try again"
            " later",
        )
    log.error("call_failed", method=name, exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL, "internal error; the coordinator's log has the details"
    )
