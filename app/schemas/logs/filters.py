"""Filters of log lines in query strings: the same wherever a log is read."""

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from marshmallow import ValidationError, post_load

from app.log_filter import MAX_RANKS, MAX_SOURCES, MAX_TEXT, BadFilter, LogFilter
from app.schemas.fields import Choice, Many, QueryWhole, Text, Time, messages
from app.schemas.loading import Query

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

#: The level from which on a filter lets entries pass; every entry passes DEBUG.
_LEVELS: Final[Mapping[str, int]] = {"DEBUG": 0, "INFO": 2, "WARNING": 3, "ERROR": 4}
#: Names of a filter's conditions in queries, where they are others.
_NAMES: Final[Mapping[str, str]] = {"ranks": "rank", "sources": "source", "min_level": "level"}
#: Nanoseconds.
_UNITS: Final[Mapping[str, int]] = {
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
}
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Moment(Time):
    """A time in nanoseconds since 1970: RFC 3339, or how long ago, such as `10m`.

    One of so long ago is rounded down, by at most a sixtieth of it: those who ask for the
    same at about the same time are to have the same.
    """

    default_error_messages = messages(
        invalid="Must be a time such as 2030-01-31T18:00:00Z, or how long ago, such as 30s, 10m, "
        "2h or 1d.",
        invalid_awareness="Must have a time zone, as in 2030-01-31T18:00:00Z.",
    )

    _AGO = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
    #: A plus that was not percent-encoded arrives as a space.
    _SPACE = re.compile(r" (?=[0-9]{2}:[0-9]{2}\Z)")

    def __init__(self, text: str, *, now: Callable[[], int] = time.time_ns, **kwargs: Any) -> None:
        super().__init__(text, **kwargs)
        self._now = now

    def deserialize(
        self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any
    ) -> Any:
        """Load it, as marshmallow does."""
        if isinstance(value, str) and (ago := self._AGO.fullmatch(value)) is not None:
            length = int(ago[1]) * _UNITS[ago[2]]
            step = max(length // 60, 1)
            return max((self._now() - length) // step * step, 0)
        if isinstance(value, str) and len(value) <= 64:
            value = self._SPACE.sub("+", value)
        loaded = super().deserialize(value, attr, data, **kwargs)
        if not isinstance(loaded, datetime):
            return loaded
        since = loaded - _FIRST
        return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


class LogFilterQuery(Query):
    """The conditions of a filter. Loaded, they are the argument `log_filter`."""

    level = Choice("Minimum level of the entries.", LOG_LEVELS, load_default="DEBUG")
    rank = Many(
        "Rank of the process. Repeat it for any of several.",
        QueryWhole(""),
        most=MAX_RANKS,
        load_default=list,
    )
    source = Many(
        "`stdout`, `stderr` or `coordinator`. Repeat it for any of several.",
        Text("", most=64, blank=False),
        most=MAX_SOURCES,
        load_default=list,
    )
    contains = Text(
        "Text that the message contains, whatever its case. As all conditions, it is judged by "
        "the first 16 KiB of a message.",
        most=MAX_TEXT,
        load_default="",
    )
    matches = Text(
        "Regular expression (RE2) that the message matches somewhere. One that takes too much "
        "work is refused.",
        most=MAX_TEXT,
        load_default="",
    )
    since = Moment(
        "Only entries of this time or a later one: RFC 3339, or how long ago (`10m`).",
        load_default=None,
    )
    until = Moment("Only entries before this time, given as `since` is.", load_default=None)

    @post_load
    def _build_filter(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        conditions = {
            "min_level": _LEVELS[data.pop("level")],
            "ranks": frozenset(data.pop("rank")),
            "sources": frozenset(data.pop("source")),
            **{name: data.pop(name) for name in ("contains", "matches", "since", "until")},
        }
        try:
            return {**data, "log_filter": LogFilter(**conditions)}
        except BadFilter as error:
            problem = error.problem[0].upper() + error.problem[1:] + "."
            raise ValidationError({_NAMES.get(error.field, error.field): [problem]}) from None
