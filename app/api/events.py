"""The events of the streams, as the API's document describes them."""

from app.api.endpoint import Event
from app.schemas.events import BookmarkEvent, EndEvent, ErrorEvent, GapEvent

_BOOKMARK = Event(
    "bookmark",
    "First, and whenever the position moved although nothing passed the filter.",
    BookmarkEvent(),
)
_END = Event("end", "Last: the client has everything that it asked for.", EndEvent())
_ERROR = Event("error", "Last: the stream broke off.", ErrorEvent())

LOG_EVENTS = (
    _BOOKMARK,
    Event("log", "One entry, in order and once.", "LogEntry"),
    Event("gap", "Entries that will not come.", GapEvent()),
    _END,
    _ERROR,
)
METRICS_EVENTS = (
    _BOOKMARK,
    Event("metrics", "The newest snapshot, once an interval at most.", "MetricsSnapshot"),
    _END,
    _ERROR,
)
