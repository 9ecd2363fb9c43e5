"""Stream tickets: for clients that cannot send a header, such as a browser's EventSource.

A ticket is `sgt_` and 43 random characters (256 bits). It opens one thing (`Opens`),
once, within a minute, for the caller for whom it was made. PostgreSQL has its
SHA-256, so that every replica takes it and only one can. A stream that it opened
ends when the credential behind it does, and with the console session that it was made in.

A ticket that does not fit the request is used up, so that it cannot be tried out.
Expired tickets are deleted by those that create new ones, up to a hundred each: no
task and no particular replica has to do it.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import structlog

from app.auth.secret_rows import SWEEP, Rows, ask, digest
from app.caller import Caller
from app.errors import AUTH_TICKET_INVALID, ApiError
from app.scaikey import api_keys

log = structlog.get_logger()

PREFIX = "sgt_"
#: Seconds within which a ticket has to be used.
LIFETIME = 60

# The column `job_id` has the subject; replicas of an earlier version call it so.
_ISSUE = """
WITH swept AS (
    DELETE FROM mod_scaimind_stream_tickets WHERE ticket_hash IN (
        SELECT ticket_hash FROM mod_scaimind_stream_tickets WHERE expires_at < now()
        LIMIT %s FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO mod_scaimind_stream_tickets (
    ticket_hash, job_id, kind, tenant_id, user_id, roles, permissions,
    credential_id, credential_expires_at, session_id, expires_at
) VALUES (
    %s, %s, %s, %s, %s, %s::text[], %s::text[], %s, %s, %s, now() + make_interval(secs => %s)
)
RETURNING expires_at
"""
# The last column tells whether what is behind the ticket still counts: API key and session.
_REDEEM = """
DELETE FROM mod_scaimind_stream_tickets AS ticket WHERE ticket_hash = %s
RETURNING job_id, kind, expires_at > now(), tenant_id, user_id, roles, permissions,
    credential_id, credential_expires_at, session_id,
    (credential_id !~ %s OR EXISTS (
        SELECT FROM mod_scaimind_api_keys AS key
        WHERE key.key_id = ticket.credential_id AND key.revoked_at IS NULL
    )) AND (session_id IS NULL OR EXISTS (
        SELECT FROM mod_scaimind_console_sessions AS session
        WHERE session.secret_hash = decode(substr(ticket.session_id, 5), 'hex')
        AND session.kind = 'session'
    ))
"""
_IS_API_KEY = f"^{api_keys.KEY_ID.pattern}$"


class StreamKind(StrEnum):
    """What a stream carries."""

    #: As Server-Sent Events.
    LOGS = "logs"
    LOGS_TEXT = "logs.text"
    LOGS_NDJSON = "logs.ndjson"
    METRICS = "metrics"
    #: One path of the drive, which is the subject.
    DRIVE = "drive"
    #: A stream over many jobs; the subject is the digest of what it is about.
    EVENTS = "events"
    SEARCH = "search"

    @classmethod
    def of_log(cls, form: str) -> "StreamKind":
        """Return the kind of a log's stream in a form: `sse`, `text` or `ndjson`."""
        return cls.LOGS if form == "sse" else cls(f"logs.{form}")


@dataclass(frozen=True, slots=True)
class Opens:
    """What a ticket opens."""

    kind: StreamKind
    #: Which one of its kind: of a job's stream the job's id. At most 4,096 characters; a longer
    #: subject has to be told by its digest.
    subject: str


@dataclass(frozen=True, slots=True)
class NewTicket:
    """A ticket that was just made, with the secret that nobody can read again."""

    secret: str = field(repr=False)
    expires_at: datetime


class Database(Protocol):
    """What the tickets need of the pool."""

    async def take(self, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Run a statement that changes rows and returns some; raises `DatabaseError`."""


class Tickets:
    """Makes tickets, and takes each of them once. `now` is the wall clock."""

    def __init__(self, *, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def issue(self, caller: Caller, opens: Opens) -> NewTicket:
        """Make a ticket for a caller who may see what it opens. Raises `ApiError`."""
        secret = PREFIX + secrets.token_urlsafe(32)
        [(expires_at,)] = await self._ask(
            _ISSUE,
            (
                *(
                    SWEEP,
                    digest(secret),
                    opens.subject,
                    opens.kind.value,
                    caller.tenant_id,
                    caller.user_id,
                ),
                *(sorted(caller.roles), sorted(caller.permissions)),
                *(caller.credential_id, caller.expires_at, caller.session_id or None, LIFETIME),
            ),
        )
        return NewTicket(secret, expires_at)

    async def redeem(self, secret: str, opens: Opens, *, request_id: str) -> Caller:
        """Use a ticket up, and return for whom it was made.

        One that does not fit is used up as well. Raises `ApiError`; why a
        ticket is not valid is only logged.
        """
        rows = await self._ask(_REDEEM, (digest(secret), _IS_API_KEY))
        if not rows:
            raise _refusal("it does not exist or was already used")
        subject, kind, in_time, tenant_id, user_id, roles, permissions, *credential = rows[0]
        credential_id, credential_expires_at, session_id, counts = credential
        if not in_time:
            raise _refusal("it has expired", credential_id)
        if (subject, kind) != (opens.subject, opens.kind.value):
            raise _refusal("it is for something else", credential_id)
        if not counts:
            raise _refusal("the credential or session behind it was revoked", credential_id)
        caller = Caller(
            tenant_id=tenant_id,
            user_id=user_id,
            roles=frozenset(roles),
            permissions=frozenset(permissions),
            credential_id=credential_id,
            expires_at=credential_expires_at,
            request_id=request_id,
            session_id=session_id or "",
        )
        # By the clock that ends streams, not by the database's.
        if caller.expired(self._now()):
            raise _refusal("the credential behind it has expired", credential_id)
        return caller

    async def _ask(self, statement: str, parameters: Sequence[Any]) -> Rows:
        return await ask(
            self._database.take, statement, parameters, failure="stream_tickets_failed"
        )


def _refusal(reason: str, credential_id: str | None = None) -> ApiError:
    log.info("ticket_refused", reason=reason, credential_id=credential_id)
    return ApiError(AUTH_TICKET_INVALID)
