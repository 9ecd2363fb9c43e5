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
    """Nothing: what a bookmark tells is its id."""


class GapEvent(Schema):
    """Entries that will not come."""

    first = EventId("The first of them.", data_key="from")
    last = EventId("The last of them; null where nobody knows.", data_key="to", allow_none=True)
    reason = fields.String(required=True, metadata={"description": "Why they will not come."})


class EndEvent(Schema):
    """The stream is complete."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(JOB_STATUSES),
        metadata={"description": "The job's."},
    )
    last_id = EventId("The client has everything up to it.")


class ErrorEvent(Schema):
    """The stream broke off."""

    error = fields.String(required=True, validate=validate.Equal("stream ended"))
    code = fields.String(
        required=True, metadata={"description": "Of the error, as in the error envelope."}
    )
    retryable = fields.Boolean(
        required=True, metadata={"description": "Whether to connect again, with the last id."}
    )
