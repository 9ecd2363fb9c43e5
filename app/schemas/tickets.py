"""Stream tickets."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, validates_schema

from app.schemas.fields import Choice, Text, Time
from app.schemas.ids import Id
from app.schemas.loading import Body

STREAM_KINDS = ("logs", "metrics", "events")


class StreamTicketBody(Body):
    """`POST /stream-tickets`."""

    job_id = Id("Job to watch; of each kind but `events`.", load_default="")
    kind = Choice(
        "Kind of stream: `logs` is /jobs/{job_id}/logs, `metrics` is "
        "/jobs/{job_id}/metrics/stream, `events` is /events.",
        STREAM_KINDS,
        required=True,
    )
    selection = Text(
        "Of the kind `events`: the query of /events that is to be sent, without ticket and "
        "last_event_id. The stream may be opened with other values of tail and interval.",
        most=8192,
        load_default="",
    )

    @validates_schema
    def _has_its_subject(self, data: Mapping[str, Any], **_: Any) -> None:
        if data["kind"] == "events":
            if data.get("job_id"):
                raise ValidationError("Must not be given for events. Use selection.", "job_id")
        elif data.get("selection"):
            raise ValidationError("Only allowed for events.", "selection")
        elif not data.get("job_id"):
            raise ValidationError("Missing data for required field.", "job_id")


class StreamTicket(Schema):
    """Its answer."""

    ticket = Text(
        "Send it as the query argument `ticket`. It can be used once and is not shown again.",
        required=True,
    )
    expires_at = Time("Time by which the ticket must be used.", required=True)
    job_id = Text(
        "Job that the ticket is for; null of the kind `events`.", required=True, allow_none=True
    )
    kind = Choice("Kind of stream that the ticket is for.", STREAM_KINDS, required=True)


STREAM_TICKET_BODY = StreamTicketBody()
STREAM_TICKET = StreamTicket()
