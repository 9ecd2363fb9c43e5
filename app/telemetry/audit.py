"""The audit trail: who changed what, and with what outcome, as one log event each.

An event is named `audit` and is written at every log level. It has `action`,
`outcome`, `actor` (`user`, `operator` or `coordinator`), `tenant_id`, `user_id`
and `credential_id` of who acted, `target_type` and `target_id`, and what the
context knows: `request_id` and `trace_id`. It never has a body, a secret, or a text
that somebody wrote.
"""

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from app.shortening import shortened

#: Of what was done; anything else is the code of the error, or `UNKNOWN`.
OK: Final = "ok"
#: It was broken off: it may have been done or not.
UNKNOWN: Final = "unknown"

_MAX_TEXT: Final = 256

# Not `get_logger`: an audit trail must not depend on the level that operators want to read.
_log: FilteringBoundLogger = structlog.wrap_logger(
    None, wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG)
)


class Action(StrEnum):
    """What is done. A published name keeps its meaning."""

    # Asked for by callers
    JOB_SUBMIT = "job.submit"
    JOB_VALIDATE = "job.validate"
    JOB_CANCEL = "job.cancel"
    JOB_PAUSE = "job.pause"
    JOB_RESUME = "job.resume"
    JOB_RETRY = "job.retry"
    JOB_UPDATE = "job.update"
    JOB_DELETE = "job.delete"
    EVALUATION_SUBMIT = "evaluation.submit"
    NODE_DRAIN = "node.drain"
    NODE_ENABLE = "node.enable"
    STREAM_TICKET_CREATE = "stream_ticket.create"
    DATA_VALIDATE = "data.validate"
    CONSOLE_CODE_CREATE = "console_code.create"
    CONSOLE_SESSION_CREATE = "console_session.create"
    CONSOLE_SESSION_END = "console_session.end"
    FILE_WRITE = "file.write"
    FILE_DELETE = "file.delete"
    UPLOAD_CREATE = "upload.create"
    UPLOAD_WRITE = "upload.write"
    UPLOAD_TERMINATE = "upload.terminate"

    # By operators, on the command line
    KEY_CREATE = "key.create"
    KEY_REVOKE = "key.revoke"
    SIGNING_KEY_ROTATE = "signing_key.rotate"

    # Decided by the coordinator
    JOB_PREEMPT = "job.preempt"
    JOB_EVICT = "job.evict"
    JOB_TIME_OUT = "job.time_out"
    JOB_END_FOR_MEMORY = "job.end_for_memory"
    JOB_REQUEUE = "job.requeue"
    JOB_RESTART = "job.restart"
    JOB_RECOVER = "job.recover"
    JOB_FAIL = "job.fail"
    JOB_EXPIRE = "job.expire"


class Actor(StrEnum):
    """Who acts."""

    USER = "user"
    OPERATOR = "operator"
    COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who acts, as far as it is known."""

    actor: Actor
    tenant_id: str | None = None
    user_id: str | None = None
    #: Which key or token it was, never the secret itself.
    credential_id: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What is acted on; `tenant_id` where it need not be the actor's."""

    kind: str
    id: str
    tenant_id: str | None = None


def record(
    action: Action,
    *,
    by: Identity,
    on: Target | None,
    outcome: str = OK,
    log: FilteringBoundLogger | None = None,
    **details: str | int | None,
) -> None:
    """Write one event, to the process's log unless another one is given.

    Texts are cut at 256 characters, and then end in CUT.
    """
    fields: dict[str, str | int | None] = {
        "action": action.value,
        "outcome": outcome,
        "actor": by.actor.value,
        "tenant_id": by.tenant_id,
        "user_id": by.user_id,
        "credential_id": by.credential_id,
        "target_type": None if on is None else on.kind,
        "target_id": None if on is None else on.id,
    }
    if on is not None and on.tenant_id is not None:
        fields["target_tenant_id"] = on.tenant_id
    fields |= details
    (log or _log).info("audit", **{name: _bounded(value) for name, value in fields.items()})


def _bounded(value: str | int | None) -> str | int | None:
    return shortened(value, _MAX_TEXT) if isinstance(value, str) else value
