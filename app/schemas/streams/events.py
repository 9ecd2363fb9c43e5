"""What the events of the streams carry, where it is no message of the contract."""

from typing import Any

from marshmallow import Schema, fields, validate

from app.schemas.jobs import JOB_STATUSES

#: The form of an id.
EVENT_ID = r"[a-z0-9]{1,32}:(0|[1-9][0-9]{0,17})"


class EventId(fields.String):
    """The id of an event: `<epoch>:<offset>`."""

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(
            required=True,
            validate=validate.Regexp(EVENT_ID + r"\Z"),
            metadata={"description": text},
            **kwargs,
        )


class BookmarkEvent(Schema):
    """Empty: a bookmark carries only its id."""


class GapEvent(Schema):
    """Entries that cannot be delivered."""

    first = EventId("Id of the first missing entry.", data_key="from")
    last = EventId("Id of the last missing entry; null if unknown.", data_key="to", allow_none=True)
    reason = fields.String(required=True, metadata={"description": "Why they cannot be delivered."})


class EndEvent(Schema):
    """The stream is complete."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(JOB_STATUSES),
        metadata={
            "description": "Status of the job: one that ends it, unless follow=false asked for "
            "the tail alone."
        },
    )
    last_id = EventId("Id of the last event that the client received.")


class ErrorEvent(Schema):
    """The stream ended with an error."""

    error = fields.String(required=True, validate=validate.Equal("stream ended"))
    code = fields.String(
        required=True, metadata={"description": "Code of the error, as in the error envelope."}
    )
    retryable = fields.Boolean(
        required=True,
        metadata={"description": "Whether a reconnection with the last id may succeed."},
    )
