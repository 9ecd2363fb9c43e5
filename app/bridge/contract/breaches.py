"""The kinds of broken contracts, and how they are told: counted each time, logged now and then."""

import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import structlog

from app.errors import BrokenContract

log = structlog.get_logger()


class Breach(StrEnum):
    """What is wrong with a message; a label of a metric, so a small fixed set."""

    #: The bytes are not the message.
    UNREADABLE = "unreadable"
    #: The message or its metadata is over gRPC's limits.
    TOO_LARGE = "too_large"
    #: A number, a time, an enum or a text is outside its bounds.
    VALUE = "value"
    #: An id or a page token that nobody could send back.
    IDENTIFIER = "identifier"
    #: Another resource than the one that was asked for.
    RESOURCE = "resource"
    #: Something of another tenant.
    TENANT = "tenant"
    #: More entries than were asked for, one twice, or a page that leads nowhere.
    PAGE = "page"
    #: An epoch of another form, or of another log than the one that was asked for.
    EPOCH = "epoch"
    #: Offsets or sequences that do not rise, or lie outside of what was asked for.
    ORDER = "order"
    #: A log level out of range, or below the filter.
    LEVEL = "level"
    #: A stream without its start, with two of them, or one that starts elsewhere.
    START = "start"
    #: An end with a status that does not end a job, or before what was already sent.
    END = "end"


#: Told of each breach: the method, such as "GetJob", and what was raised.
ReportBreach: TypeAlias = Callable[[str, BrokenContract], None]


def _nothing(kind: str) -> None:
    """Expect nothing."""


class BreachReports:
    """Counts every breach by its kind, and logs each kind at most once a minute.

    One object per process: a coordinator that breaks its contract does so in
    every answer. `expect` is told of every kind at once, so that its count has a
    beginning.
    """

    #: Seconds between two log lines about one kind.
    INTERVAL = 60.0

    def __init__(
        self,
        *,
        count: Callable[[str], None],
        expect: Callable[[str], None] = _nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        for kind in Breach:
            expect(kind.value)
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def __call__(self, method: str, error: BrokenContract) -> None:
        """Report one breach."""
        kind, now = error.breach, self._clock()
        self._count(kind)
        logged_at = self._logged_at.get(kind)
        if logged_at is not None and now - logged_at < self.INTERVAL:
            self._unlogged[kind] = self._unlogged.get(kind, 0) + 1
            return
        self._logged_at[kind] = now
        log.error(
            "scaimind_contract_broken",
            method=method,
            kind=kind,
            problem=error.problem,
            unlogged=self._unlogged.pop(kind, 0),
        )


def log_breach(method: str, error: BrokenContract) -> None:
    """Log a breach, each time: for clients that nobody counts for."""
    log.error("scaimind_contract_broken", method=method, kind=error.breach, problem=error.problem)
