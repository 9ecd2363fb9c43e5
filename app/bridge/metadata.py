"""What goes to the coordinator beside each request."""

import re
from functools import lru_cache

import structlog

from app import errors
from app.caller import Caller, DownstreamTokens
from app.errors import ApiError

log = structlog.get_logger()

#: gRPC carries printable ASCII, and may strip white space at both ends, which
#: would make another tenant of " acme".
_CARRIED = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")

_MAX_IDENTITY = 256


def call_metadata(
    caller: Caller, *, api_secret: str, tokens: DownstreamTokens | None = None
) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call on behalf of `caller`.

    An identity that cannot be carried exactly is refused with
    `AUTH_TOKEN_INVALID`: any encoding could make it collide with another.
    A request id that cannot be carried is left out.
    """
    metadata = _identified(caller.tenant_id, caller.user_id, api_secret)
    if _CARRIED.fullmatch(caller.request_id):
        metadata += (("x-request-id", caller.request_id),)
    if tokens is not None:
        metadata += (
            ("x-scaidrive-token", _secret("scaidrive_token", tokens.scaidrive)),
            ("x-scaiatlas-token", _secret("scaiatlas_token", tokens.scaiatlas)),
        )
    return metadata


@lru_cache(maxsize=1024)
def _identified(
    tenant_id: str, user_id: str | None, api_secret: str
) -> tuple[tuple[str, str], ...]:
    """What all calls of a user have."""
    metadata = [
        ("x-api-secret", _secret("api_secret", api_secret)),
        ("x-tenant-id", _identity("tenant", tenant_id)),
    ]
    if user_id:
        metadata.append(("x-user-id", _identity("user", user_id)))
    return tuple(metadata)


def _identity(whose: str, value: str) -> str:
    if len(value) > _MAX_IDENTITY or not _CARRIED.fullmatch(value):
        raise ApiError(
            errors.AUTH_TOKEN_INVALID,
            f"The token's {whose} id is not valid: it must be 1 to {_MAX_IDENTITY} printable"
            " ASCII characters that neither begin nor end with a space.",
        )
    return value


def _secret(name: str, value: str) -> str:
    if not _CARRIED.fullmatch(value):
        # A header of nothing would be told apart by no one: better to fail here, and say which.
        log.error(
            "scaimind_metadata_unusable",
            name=name,
            problem="must be non-empty printable ASCII without leading or trailing spaces",
        )
        raise ApiError(errors.INTERNAL_ERROR)
    return value
