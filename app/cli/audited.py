"""What operators change on the command line, as audit events on stderr."""

import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.telemetry.audit import Action, Target

#: The kernel's value of a process that no login began.
_NO_LOGIN = 2**32 - 1


@dataclass(slots=True)
class Change:
    """What is known of a change; completed while it is made."""

    target: "Target | None" = None
    details: dict[str, str] = field(default_factory=dict)


@contextmanager
def audited(action: "Action", target: "Target | None" = None) -> Iterator[Change]:
    """Write one event about what happens within. An exception passes; its class is the outcome."""
    from app.telemetry.audit import OK, Actor, Identity, record
    from app.telemetry.logs import logger_to

    change = Change(target)
    outcome = OK
    try:
        yield change
    except Exception as error:
        outcome = type(error).__name__
        raise
    finally:
        record(
            action,
            by=Identity(Actor.OPERATOR, user_id=_operator()),
            on=change.target,
            outcome=outcome,
            # stdout has what was asked for.
            log=logger_to(sys.stderr.buffer),
            **change.details,
        )


def _operator() -> str:
    """Name the user who logged in, whoever the process runs as; else the process's own."""
    uid = os.getuid()
    with suppress(OSError, ValueError):
        login = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
        uid = uid if login == _NO_LOGIN else login
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
