"""The events of the streams, as the API's document describes them."""

from app.api.endpoint import Event
from app.schemas.events import BookmarkEvent, EndEvent, ErrorEvent, GapEvent

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
METRICS_EVENTS = (
    _BOOKMARK,
    Event("metrics", "The newest snapshot, at most one per interval.", "MetricsSnapshot"),
    _GAP,
    _END,
    _ERROR,
)
