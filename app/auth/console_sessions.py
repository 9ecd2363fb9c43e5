"""Console sessions: how a browser gets a caller's rights without seeing the caller's key.

`scaimind console` has a code made (`sgo_` and 43 random characters) and opens the page
with it in the address's fragment, which no server ever sees. The page exchanges the
code, once and within a minute, for the bearer token of a session (`sgc_` and 43 random
characters). Both end with the credential that they come from, and a session after
twelve hours at the latest.

PostgreSQL has the SHA-256 of each, and the credential itself, which is exchanged for
tokens of other services, sealed (RFC 7516, A256GCM) with a key that only the code or
the token gives. Whoever reads the table learns no secret.

Nothing is remembered: a session that has ended is refused at once on every replica. Its id
(`ses_` and the hash of its token in hexadecimal) names what it has open: whoever ends it tells
every replica on the channel of revoked keys (`app/auth/revocations.py`).
Rows that have ended are deleted by those that make new ones, up to a hundred each.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import structlog
from joserfc import jwe
from joserfc.jwk import OctKey
from typing_extensions import override

from app.auth.authenticator import Refused, Verifier
from app.auth.secret_rows import SWEEP, Rows, ask, digest
from app.caller import Caller
from app.errors import AUTH_CODE_INVALID, ApiError
from app.scaikey import api_keys

log = structlog.get_logger()

CODE_PREFIX: Final = "sgo_"
SESSION_PREFIX: Final = "sgc_"
#: The id of a session: no secret, but what its streams are ended by.
SESSION_ID: Final = re.compile(r"ses_[0-9a-f]{64}")
#: Seconds within which a code has to be exchanged.
CODE_LIFETIME: Final = 60
#: Seconds after which a session ends at the latest.
SESSION_LIFETIME: Final = 12 * 60 * 60

_INSERT = """
WITH swept AS (
    DELETE FROM mod_scaimind_console_sessions WHERE secret_hash IN (
        SELECT secret_hash FROM mod_scaimind_console_sessions WHERE expires_at < now()
        LIMIT %s FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO mod_scaimind_console_sessions (
    secret_hash, kind, sealed_token, tenant_id, user_id, roles, permissions,
    credential_id, credential_expires_at, expires_at
) VALUES (
    %s, %s, %s, %s, %s, %s::text[], %s::text[], %s, %s,
    least(now() + make_interval(secs => %s), %s)
) RETURNING expires_at
"""
# The last column tells whether the credential behind it still counts.
_COLUMNS = """
    sealed_token, tenant_id, user_id, roles, permissions, credential_id, credential_expires_at,
    expires_at, expires_at > now() AND (credential_id !~ %s OR EXISTS (
        SELECT FROM mod_scaimind_api_keys AS key
        WHERE key.key_id = session.credential_id AND key.revoked_at IS NULL
    ))
"""
_TAKE = (
    "DELETE FROM mod_scaimind_console_sessions AS session"
    f" WHERE secret_hash = %s AND kind = 'code' RETURNING {_COLUMNS}"
)
_FIND = (
    f"SELECT {_COLUMNS} FROM mod_scaimind_console_sessions AS session"
    " WHERE secret_hash = %s AND kind = 'session'"
)
# Notified in the same transaction: a session that is seen to have ended has been told of.
_END = (
    "WITH ended AS (DELETE FROM mod_scaimind_console_sessions"
    " WHERE secret_hash = %s AND kind = 'session' RETURNING secret_hash)"
    f" SELECT pg_notify('{api_keys.REVOCATIONS}', 'ses_' || encode(secret_hash, 'hex')) FROM ended"
)
_COUNTING = (
    "SELECT 'ses_' || encode(secret_hash, 'hex') FROM mod_scaimind_console_sessions"
    " WHERE secret_hash = ANY(%s) AND kind = 'session' AND expires_at > now()"
)
_IS_API_KEY = f"^{api_keys.KEY_ID.pattern}$"


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A code or a session's token that was just made; nobody can read it again."""

    secret: str = field(repr=False)
    expires_at: datetime


class Database(Protocol):
    """What the sessions need of the pool."""

    async def read(self, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Run a query; raises `DatabaseError`."""

    async def take(self, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Run a statement that changes rows and returns some; raises `DatabaseError`."""


class ConsoleSessions(Verifier):
    """Makes, exchanges, verifies and ends them. `now` is the wall clock."""

    def __init__(self, *, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def make_code(self, caller: Caller) -> NewSecret:
        """Make a code for a caller. Raises `ApiError`."""
        return await self._make(caller, "code", CODE_PREFIX, CODE_LIFETIME)

    async def exchange(self, code: str, *, request_id: str) -> tuple[Caller, NewSecret]:
        """Use a code up; return for whom it was made, and the token of a new session.

        Raises `ApiError`; why a code is not valid is only logged.
        """
        rows = await self._ask(self._database.take, _TAKE, (digest(code), _IS_API_KEY))
        try:
            caller = self._caller(rows, code, request_id=request_id)
        except Refused as refused:
            log.info("console_code_refused", reason=str(refused))
            raise ApiError(AUTH_CODE_INVALID) from None
        return caller, await self._make(caller, "session", SESSION_PREFIX, SESSION_LIFETIME)

    async def end(self, token: str) -> bool:
        """End a session and all that it has open; return whether the token was that of one.

        Raises `ApiError`.
        """
        return bool(await self._ask(self._database.take, _END, (digest(token),)))

    @override
    def recognises(self, token: str) -> bool:
        return token.startswith(SESSION_PREFIX)

    @override
    async def verify(self, token: str) -> Caller:
        parameters = (_IS_API_KEY, digest(token))
        return self._caller(await self._ask(self._database.read, _FIND, parameters), token)

    async def _make(self, caller: Caller, kind: str, prefix: str, lifetime: int) -> NewSecret:
        secret = prefix + secrets.token_urlsafe(32)
        rows = await self._ask(
            self._database.take,
            _INSERT,
            (
                *(SWEEP, digest(secret), kind, _sealed(caller.subject_token, secret)),
                *(caller.tenant_id, caller.user_id),
                *(sorted(caller.roles), sorted(caller.permissions)),
                *(caller.credential_id, caller.expires_at, lifetime, caller.expires_at),
            ),
        )
        return NewSecret(secret, rows[0][0])

    def _caller(
        self, rows: Sequence[Sequence[Any]], secret: str, *, request_id: str = ""
    ) -> Caller:
        """Read a row. Raises `Refused`."""
        if not rows:
            raise Refused("a console code or session that does not exist, or was used")
        sealed, tenant_id, user_id, roles, permissions, credential_id, *times, counts = rows[0]
        credential_expires_at, expires_at = times
        if not counts:
            raise Refused(f"a console code or session of {credential_id} that has ended")
        # A code is short-lived, what comes of it is not: it ends as the credential does.
        ends = credential_expires_at if secret.startswith(CODE_PREFIX) else expires_at
        caller = Caller(
            tenant_id=tenant_id,
            user_id=user_id,
            roles=frozenset(roles),
            permissions=frozenset(permissions),
            credential_id=credential_id,
            expires_at=ends,
            request_id=request_id,
            session_id=_session_id(secret) if self.recognises(secret) else "",
            subject_token=_opened(sealed, secret),
        )
        # By the clock that ends streams, not by the database's.
        if caller.expired(self._now()):
            raise Refused(f"a console code or session of {credential_id} that has expired")
        return caller

    async def _ask(self, run: Any, statement: str, parameters: Sequence[Any]) -> Rows:
        return await ask(run, statement, parameters, failure="console_sessions_failed")


def counting_statement(session_ids: Collection[str]) -> tuple[str, Sequence[Any]]:
    """Return what selects the ids of those sessions that count now."""
    return _COUNTING, ([bytes.fromhex(each.removeprefix("ses_")) for each in sorted(session_ids)],)


def _session_id(token: str) -> str:
    return f"ses_{digest(token).hex()}"


def _key(secret: str) -> OctKey:
    """The key that seals what belongs to a secret: another hash of its 256 random bits."""
    return OctKey.import_key(hashlib.sha256(b"sealed by " + secret.encode()).digest())


def _sealed(token: str, secret: str) -> str:
    return jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, token.encode(), _key(secret))


def _opened(sealed: str, secret: str) -> str:
    plain = jwe.decrypt_compact(sealed, _key(secret)).plaintext
    assert plain is not None
    return plain.decode()
