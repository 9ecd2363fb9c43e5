"""Structured logs: one JSON object a line, whoever logs.

Events of structlog and records of the standard library (aiohttp, asyncio,
grpc, alembic) go through the same processors, so that every line has the same
fields: `timestamp`, `level`, `event`, and within a request `request_id`,
`tenant_id` and `user_id`.
"""

import json
import logging
import sys
import time
from collections.abc import Iterable
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

import orjson
import structlog
from structlog.contextvars import STRUCTLOG_KEY_PREFIX
from structlog.processors import StackInfoRenderer, add_log_level, format_exc_info
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from app.telemetry.redaction import Redaction
from app.telemetry.settings import TelemetrySettings

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
#: Loggers that tell at INFO or DEBUG what is of no use to an operator, or is not for logs: each
#: header of an answer, with what it says.
_CHATTY = ("alembic", "grpc", "asyncio", "hpack")

_add_stack = StackInfoRenderer()


def configure(
    settings: TelemetrySettings,
    *,
    out: BinaryIO,
    known_secrets: Iterable[str] = (),
    for_good: bool = False,
) -> None:
    """Send all logs of this process to `out`; later calls replace what earlier ones set up.

    `known_secrets` never appear in a line, whatever form they have. With `for_good` there is
    no later call: a module's logger is then made once, and not for each line.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=_processors(known_secrets),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(file=cast(BinaryIO, _Output(out))),
        cache_logger_on_first_use=for_good,
    )
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, StandardLibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(StandardLibraryHandler(structlog.get_logger()))
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def only_warnings() -> None:
    """Have commands log warnings alone, on stderr, in a form for people."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def logger_to(out: BinaryIO) -> FilteringBoundLogger:
    """Make a logger whose lines have the same form, and go to `out` whatever is configured."""
    made: FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(cast(BinaryIO, _Output(out))),
        processors=_processors(()),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )
    return made


def _processors(known_secrets: Iterable[str]) -> list[Processor]:
    return [_Completer(), _Renderer(Redaction(known=known_secrets))]


class _Completer:
    """Adds what every line has: the context's fields, the level and the time.

    One pass with as little as possible: every request has a line. structlog's own processors
    for the context and the time take three times as long.
    """

    def __init__(self) -> None:
        #: What the context's variables are called in a line; empty for those that are not for logs.
        self._names: dict[ContextVar[Any], str] = {}
        #: The second that was written last, in one piece: other threads log, too.
        self._last = (0, "1970-01-01T00:00:00")

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        names = self._names
        for variable, value in copy_context().items():
            name = names.get(variable)
            if name is None:
                names[variable] = name = _name_of(variable)
            if name and value is not Ellipsis and name not in event:
                event[name] = value
        add_log_level(logger, method, event)
        event["timestamp"] = self._time()
        if "stack_info" in event:
            event = _add_stack(logger, method, event)
        if "exc_info" in event:
            event = format_exc_info(logger, method, event)
        return event

    def _time(self) -> str:
        """The time: ISO 8601 in UTC, to the microsecond. A second is written once."""
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        last, text = self._last
        if second != last:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._last = (second, text)
        return f"{text}.{rest // 1000:06d}Z"


def _name_of(variable: ContextVar[Any]) -> str:
    if not variable.name.startswith(STRUCTLOG_KEY_PREFIX):
        return ""
    return variable.name.removeprefix(STRUCTLOG_KEY_PREFIX)


class _Output:
    """A log's file whose failure costs lines, such as on a full disk, and never the work that
    they tell of."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    # Not `suppress`, which takes longer than the write.
    def write(self, line: bytes) -> None:
        try:  # noqa: SIM105
            self._out.write(line)
        except OSError:
            pass

    def flush(self) -> None:
        try:  # noqa: SIM105
            self._out.flush()
        except OSError:
            pass


class StandardLibraryHandler(logging.Handler):
    """Hands records of the standard library to structlog."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as an event that names its logger."""
        level = max((each for each in _LEVELS if each <= record.levelno), default=logging.DEBUG)
        try:
            self._log.log(
                level, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
            )
        except (TypeError, ValueError):
            # A record whose arguments do not fit its text: a bug of the caller, not of ours.
            self._log.log(level, str(record.msg), logger=record.name)


class _Renderer:
    """Makes the line: JSON without secrets."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> bytes:
        line = _dump(event)
        return line if self._redaction.is_needless(event) else self._redaction(line)


def _dump(event: EventDict) -> bytes:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        # What orjson refuses (lone surrogates, integers beyond 64 bits) must not cost the line.
        return json.dumps(_plain(event), default=repr).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value
