"""The events of the streams, as the API's document describes them."""

from app.api.endpoint import Event
from app.schemas.logs.answers import SEARCH_DONE, SEARCH_MATCH, SEARCH_PROGRESS
from app.schemas.streams.events import BookmarkEvent, EndEvent, ErrorEvent, GapEvent
from app.schemas.streams.many_jobs import (
    BOOKMARK_ID,
    JobEndEvent,
    JobGapEvent,
    JobGoneEvent,
    LimitEvent,
    OfJob,
    ResetEvent,
    SyncedEvent,
)

_BOOKMARK = Event(
    "bookmark",
    "The current position: the first event, and sent while the filter lets no entry through.",
    BookmarkEvent(),
)
_END = Event("end", "The last event: everything that was requested has been delivered.", EndEvent())
_ERROR = Event("error", "The last event: the stream ended with an error.", ErrorEvent())

_GAP = Event(
    "gap", "Entries or snapshots that cannot be delivered, or whose id is unknown.", GapEvent()
)

LOG_EVENTS = (
    _BOOKMARK,
    Event("log", "A log entry. Entries arrive in order, each once.", "LogEntry"),
    _GAP,
    _END,
    _ERROR,
)
SEARCH_EVENTS = (
    Event("match", "An entry that was found; from the newest to the oldest.", SEARCH_MATCH),
    Event(
        "progress",
        "How far the search is: the first event, and at least every 250 ms.",
        SEARCH_PROGRESS,
    ),
    Event("done", "The last event: the search is over.", SEARCH_DONE),
    _ERROR,
)
METRICS_EVENTS = (
    _BOOKMARK,
    Event("metrics", "The newest snapshot, at most one per interval.", "MetricsSnapshot"),
    _GAP,
    _END,
    _ERROR,
)
#: Of the stream over many jobs. Only a bookmark has an id.
MANY_JOBS_EVENTS = (
    Event(
        "job",
        "A job's state: of each at the beginning, then of each that has changed.",
        "JobState",
        id_form=None,
    ),
    Event("job_gone", "A job that the stream is no longer about.", JobGoneEvent(), id_form=None),
    Event(
        "synced",
        "All states, or all changes since the last bookmark, were sent.",
        SyncedEvent(),
        id_form=None,
    ),
    Event(
        "bookmark",
        "The stream's place: after `synced`, then every second in which something "
        "was sent, or 256 events.",
        BookmarkEvent(),
        id_form=BOOKMARK_ID,
    ),
    Event(
        "log",
        "A log entry of a followed job, as in the job's own stream.",
        "LogEntry",
        id_form=None,
        beside=OfJob(),
    ),
    Event(
        "metrics",
        "The newest snapshot of a followed job, at most one per interval.",
        "MetricsSnapshot",
        id_form=None,
        beside=OfJob(),
    ),
    Event("gap", "Entries of a followed job that are not delivered.", JobGapEvent(), id_form=None),
    Event(
        "end",
        "A followed job has ended, and everything of it was sent; the stream goes on.",
        JobEndEvent(),
        id_form=None,
    ),
    Event("limit", "More jobs match than are told of, or followed.", LimitEvent(), id_form=None),
    Event("node", "A node that has changed, and each at the beginning.", "Node", id_form=None),
    Event(
        "queue",
        "The queue, at the beginning and when it has changed.",
        "GetQueueStatusResponse",
        id_form=None,
    ),
    Event(
        "reset",
        "The client drops what it has of states: the whole state follows.",
        ResetEvent(),
        id_form=None,
    ),
    Event("error", "The last event: the stream ended with an error.", ErrorEvent(), id_form=None),
)
