"""The variables that the project's programs read, and those set that none of them does."""

import difflib
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass

import click

PREFIX = "SCAIMIND_"

#: Read where there is no section: by the command line, by scripts/, by training scripts.
_ALONE = frozenset(
    {
        "SCAIMIND_API_KEY",
        "SCAIMIND_CHECKPOINT_DIR",
        "SCAIMIND_CI_WITHOUT",
        "SCAIMIND_COORDINATOR_CONFIG",
        "SCAIMIND_DATA_DIR",
        "SCAIMIND_EXAMPLE_MODEL",
        "SCAIMIND_GPUS",
        "SCAIMIND_INVOKED_AS",
        "SCAIMIND_JOB_CONFIG",
        "SCAIMIND_JOB_ID",
        "SCAIMIND_METRICS_FILE",
        "SCAIMIND_NODE_ID",
        "SCAIMIND_NO_PROFILE",
        "SCAIMIND_OUTPUT_DIR",
        "SCAIMIND_PROFILE",
        "SCAIMIND_RESUME_FROM",
        "SCAIMIND_RUN_DIRECTORY",
        "SCAIMIND_SHARED_DISK",
        "SCAIMIND_UID_LOCK",
        "SCAIMIND_URL",
        "SCAIMIND_VENV",
        "SCAIMIND_WORKER_RULES",
    }
)
#: What Kubernetes sets for each service of a namespace, unless enableServiceLinks is false.
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A variable that no program reads."""

    variable: str
    #: The known variable that is meant, perhaps; empty if none is like it.
    meant: str

    @property
    def text(self) -> str:
        """A line for people."""
        hint = f" Did you mean {self.meant}?" if self.meant else ""
        return f"{self.variable} is set, but no program reads it.{hint}"


def unknown_variables(environ: Mapping[str, str], *, read: Set[str] = frozenset()) -> list[Unknown]:
    """Return the variables that begin with SCAIMIND_ and that no program reads, in order.

    `read` are those that the caller is known to read.
    """
    ours = {
        each
        for each, value in environ.items()
        if each.upper().startswith(PREFIX) and not _is_service_link(each, value)
    }
    ours -= _ALONE | read
    if not ours:
        return []  # Knowing all settings takes a while, and the memory of what is imported for it.
    known = known_variables()
    return [Unknown(_printable(each), _closest(each, known)) for each in sorted(ours - known)]


def warn_of_unknown(environ: Mapping[str, str]) -> None:
    """Name them on stderr, for a command that has no log to name them in."""
    for each in unknown_variables(environ):
        click.echo(f"Warning: {each.text}", err=True)


def known_variables() -> frozenset[str]:
    """Return every variable that one of the programs reads."""
    from app.local.variables import PROGRAMS, variables_of

    return _ALONE.union(*(variables_of(each) for each in PROGRAMS))


def _is_service_link(variable: str, value: str) -> bool:
    if not _SERVICE_LINK.fullmatch(variable):
        return False
    return "://" in value or variable.endswith("_ADDR") or "_SERVICE_" in variable


def _closest(variable: str, known: frozenset[str]) -> str:
    return next(iter(difflib.get_close_matches(variable.upper(), known, n=1, cutoff=0.8)), "")


def _printable(variable: str) -> str:
    return variable if variable.isprintable() else repr(variable)
