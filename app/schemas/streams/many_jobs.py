"""The query of the stream over many jobs, and what its own events carry."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from marshmallow import Schema, ValidationError, fields

from app.schemas.fields import Choice, Many, QueryWhole, Text, Time, messages
from app.schemas.ids import Id
from app.schemas.jobs import JOB_STATUSES
from app.schemas.loading import Headers
from app.schemas.logs.filters import LOG_LEVELS, LogFilterQuery

#: Characters of a bookmark's id.
MAX_BOOKMARK: Final = 3072
#: Its form.
BOOKMARK_ID: Final = rf"[A-Za-z0-9_-]{{1,{MAX_BOOKMARK}}}"

INCLUDED: Final = ("jobs", "logs", "metrics", "nodes", "queue")

#: Arguments that say what a stream is about: a place in one is none in another.
IDENTITY: Final = (
    "job_id",
    "status",
    "label",
    "user_id",
    "ended_after",
    "include",
    "level",
    "rank",
    "source",
    "contains",
    "matches",
    "since",
    "until",
)


class EndedAfter(NamedTuple):
    """A time in seconds since 1970, or how long ago, in seconds."""

    time: float | None = None
    ago: float | None = None


class EndedAfterField(Time):
    """A time (RFC 3339), or how long ago: `10m`."""

    default_error_messages = messages(
        invalid="Must be a time such as 2030-01-31T18:00:00Z, or how long ago, such as 30s, 10m, "
        "2h or 1d.",
        invalid_awareness="Must have a time zone, as in 2030-01-31T18:00:00Z.",
    )

    _AGO = re.compile(r"([0-9]{1,9})(s|m|h|d)", re.ASCII)
    _UNITS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    #: A plus that was not percent-encoded arrives as a space.
    _SPACE = re.compile(r" (?=[0-9]{2}:[0-9]{2}\Z)")

    def deserialize(
        self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any
    ) -> Any:
        """Load it, as marshmallow does."""
        if isinstance(value, str) and (ago := self._AGO.fullmatch(value)) is not None:
            return EndedAfter(ago=float(int(ago[1]) * self._UNITS[ago[2]]))
        if isinstance(value, str) and len(value) <= 64:
            value = self._SPACE.sub("+", value)
        loaded = super().deserialize(value, attr, data, **kwargs)
        return None if loaded is None else EndedAfter(time=loaded.timestamp())


class Label(Text):
    """A label as `key=value`; loaded, the two."""

    default_error_messages = messages(form="Must be of the form key=value.")

    def __init__(self) -> None:
        super().__init__("", most=128 + 1 + 1024)

    def deserialize(
        self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any
    ) -> Any:
        """Load it, as marshmallow does; what is validated is the text."""
        text = super().deserialize(value, attr, data, **kwargs)
        key, separator, own = text.partition("=")
        if not key or not separator:
            raise self.make_error("form", input=value)
        return key, own


class Included(Many):
    """Some of `INCLUDED`, separated by commas or repeated."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            "What the stream carries: some of jobs (their states), logs, metrics, nodes and queue, "
            "separated by commas.",
            Text("", most=64),
            most=len(INCLUDED),
            load_default=lambda: {"jobs"},
            **kwargs,
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Any:
        texts = super()._deserialize(value, attr, data, **kwargs)
        found = {name for text in texts for name in text.split(",")}
        if not found <= set(INCLUDED):
            raise ValidationError(f"Must be some of: {', '.join(INCLUDED)}.")
        return found


class EventsQuery(LogFilterQuery):
    """`GET /events`."""

    job_id = Many("Only these jobs.", Id("", blank=False), most=1000, load_default=list)
    status = Many(
        "Only jobs with one of these statuses.",
        Choice("A status.", JOB_STATUSES),
        most=len(JOB_STATUSES),
        load_default=list,
    )
    label = Many(
        "Only jobs with this label, as key=value; with all of them if there are several.",
        Label(),
        most=64,
        load_default=list,
    )
    user_id = Many("Only jobs of these users.", Id("", blank=False), most=256, load_default=list)
    ended_after = EndedAfterField(
        "Only jobs that are unfinished or ended after this time: RFC 3339, or how long ago "
        "(`10m`). 1h unless it, status or job_id is given.",
        load_default=None,
    )
    include = Included()
    level = Choice("Minimum level of the log entries.", LOG_LEVELS, load_default="INFO")
    interval = QueryWhole(
        "Seconds between two metric snapshots of a job.", least=1, most=60, load_default=5
    )
    tail = QueryWhole(
        "Number of recent log entries of each job to start with.", most=1_000_000, load_default=100
    )
    last_event_id = Text(
        "Same as the header Last-Event-ID, which takes precedence.",
        most=MAX_BOOKMARK,
        load_default="",
    )
    last_event_id_of_polyfill = Text(
        "Same as last_event_id, under the name that widespread EventSource polyfills send. "
        "Both are accepted if they are equal.",
        most=MAX_BOOKMARK,
        data_key="lastEventId",
        load_default="",
    )
    ticket = Text("A stream ticket, in place of a token.", most=1024, load_default="")


class EventsHeaders(Headers):
    """Its headers."""

    last_event_id = Text(
        "Id of the last bookmark that the client received; the stream continues after it.",
        most=MAX_BOOKMARK,
        data_key="Last-Event-ID",
        load_default="",
    )


class JobGoneEvent(Schema):
    """A job that the stream is no longer about."""

    job_id = fields.String(required=True)
    reason = fields.String(
        required=True,
        metadata={
            "description": "`left`: it does not match any more; `limit`: it matches, and is left "
            "out for newer ones; `deleted`; `unknown`: it was named, and is not there."
        },
    )


class SyncedEvent(Schema):
    """The states are complete; what follows are changes."""

    jobs = fields.Integer(required=True, metadata={"description": "How many jobs match."})


class ResetEvent(Schema):
    """What the client has of states is void; the whole state follows."""

    reason = fields.String(
        required=True,
        metadata={
            "description": "`epoch_changed`: the coordinator's record is another one; `too_old`: "
            "the record of changes does not reach back so far; `limit`: jobs are left out, or were "
            "at the bookmark; `lagging`: the client was too slow."
        },
    )


class LimitEvent(Schema):
    """The selection has grown over what is told of, or followed."""

    matching = fields.Integer(required=True, metadata={"description": "How many jobs match."})
    states = fields.Integer(
        required=True, metadata={"description": "How many the stream tells of: the newest."}
    )
    followed = fields.Integer(
        required=True, metadata={"description": "How many are followed: the newest."}
    )


class OfJob(Schema):
    """Where an event of a job's log or metrics belongs."""

    job_id = fields.String(required=True)
    epoch = fields.String(required=True, metadata={"description": "Epoch of the job's log."})


class PlaceOfJob(OfJob):
    """The same, with a place in the log."""

    offset = fields.Integer(
        required=True, metadata={"description": "The stream goes on behind this entry."}
    )


class JobGapEvent(PlaceOfJob):
    """Entries of a job's log that are not delivered."""

    first = fields.String(
        required=True,
        data_key="from",
        allow_none=True,
        metadata={"description": "`<epoch>:<offset>` of the first; null if unknown."},
    )
    last = fields.String(
        required=True,
        data_key="to",
        allow_none=True,
        metadata={"description": "`<epoch>:<offset>` of the last; null if unknown."},
    )
    reason = fields.String(
        required=True,
        metadata={
            "description": "Why they are not delivered. `too_many_filters`: the job's watchers "
            "already use as many different filters as a job can have; the job is not followed."
        },
    )


class JobEndEvent(PlaceOfJob):
    """All that was asked for of a job's log and metrics was delivered; the stream goes on."""

    status = fields.String(
        required=True, metadata={"description": "The status with which the job ended."}
    )


EVENTS_QUERY = EventsQuery()
EVENTS_HEADERS = EventsHeaders()
