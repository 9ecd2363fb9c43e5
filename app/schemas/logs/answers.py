"""What is answered by what reads a log by position, and by searches."""

from marshmallow import Schema, fields, validate

from app.schemas.fields import MessageField


def _offset(text: str, *, allow_none: bool = False) -> fields.Integer:
    return fields.Integer(
        required=True,
        allow_none=allow_none,
        validate=validate.Range(min=0),
        metadata={"description": text},
    )


class LostEntries(Schema):
    """Entries that the log has lost, both ends included."""

    first = _offset("Offset of the first.")
    last = _offset("Offset of the last.")


class LogEntries(Schema):
    """A page of a job's log, by offset."""

    epoch = fields.String(
        required=True,
        metadata={"description": "Changes only when the coordinator lost or recreated the log."},
    )
    entries = fields.List(MessageField("LogEntry"), required=True)
    missing = fields.List(
        fields.Nested(LostEntries),
        required=True,
        metadata={"description": "What the log has lost of what was looked at."},
    )
    first_offset = _offset("Oldest entry of the log; 0 if it is empty.")
    last_offset = _offset("Newest entry of the log; 0 if it is empty.")
    scanned_to = _offset(
        "Everything from where the page began to here was looked at: forward, and with `before` "
        "backward."
    )
    next = _offset(
        "The `from` of the next page, or with `before` its `before`. Null if the log has no more "
        "in this direction: one that grows goes on at last_offset + 1.",
        allow_none=True,
    )
    complete = fields.Boolean(
        required=True,
        metadata={"description": "The job has ended, and its log with last_offset."},
    )


class SearchMatch(Schema):
    """An entry that was found."""

    entry = MessageField("LogEntry", required=True)
    spans = fields.List(
        fields.List(
            fields.Integer(validate=validate.Range(min=0)), validate=validate.Length(equal=2)
        ),
        required=True,
        metadata={
            "description": "Where in `message` the text was found: start and end in code points, "
            "the end excluded; at most 100."
        },
    )


class SearchProgress(Schema):
    """How far a search is."""

    scanned_to = _offset("Everything from this offset on was searched.")
    scanned_bytes = _offset("Bytes of the log that were read so far.")
    matches = _offset("Matches so far.")


class SearchDone(SearchProgress):
    """The end of a search."""

    reason = fields.String(
        required=True,
        validate=validate.OneOf(("exhausted", "limit", "budget")),
        metadata={
            "description": "The beginning of the log was reached; or there may be more, since the "
            "maximum number of matches was found, or the coordinator's bound of time or bytes was "
            "reached."
        },
    )
    before = _offset("Where to go on: the `before` of another search.", allow_none=True)


LOG_ENTRIES = LogEntries()
SEARCH_MATCH = SearchMatch()
SEARCH_PROGRESS = SearchProgress()
SEARCH_DONE = SearchDone()
