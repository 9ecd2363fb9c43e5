"""Rows that are found by a secret of which PostgreSQL has the SHA-256 alone."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import structlog

from app.database.errors import DatabaseError
from app.errors import AUTH_UNAVAILABLE, ApiError

log = structlog.get_logger()

Rows: TypeAlias = Sequence[Sequence[Any]]

#: Rows that have ended and go for each one that is made: none pile up.
SWEEP: Final = 100
#: Seconds after which a caller may try again when the database cannot be asked.
_RETRY_AFTER: Final = 2


def digest(secret: str) -> bytes:
    """Return what the database knows a secret by."""
    return hashlib.sha256(secret.encode()).digest()


async def ask(
    run: Callable[[str, Sequence[Any]], Awaitable[Rows]],
    statement: str,
    parameters: Sequence[Any],
    *,
    failure: str,
) -> Rows:
    """Return the rows of a statement; `failure` is the event that is logged if it cannot be run.

    Raises `ApiError`.
    """
    try:
        return await run(statement, parameters)
    except DatabaseError as error:
        log.error(failure, reason=str(error))
        raise ApiError(AUTH_UNAVAILABLE, retry_after=_RETRY_AFTER) from None
