"""Stream tickets."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, validates_schema

from app.schemas.fields import Choice, Text, Time
from app.schemas.ids import Id
from app.schemas.loading import Body
from app.schemas.monitoring import LOG_FORMATS

STREAM_KINDS = ("logs", "metrics", "events", "search", "drive")


class StreamTicketBody(Body):
    """`POST /stream-tickets`."""

    job_id = Id(
        "Job to watch; required for every kind except `events` and `drive`.", load_default=""
    )
    kind = Choice(
        "Kind of stream: `logs` is /jobs/{job_id}/logs, `metrics` is "
        "/jobs/{job_id}/metrics/stream, `search` is /jobs/{job_id}/logs/search, `events` is "
        "/events, `drive` is a file or a folder below /v1/drive/.",
        STREAM_KINDS,
        required=True,
    )
    format = Choice(
        "For `logs`: form of the log; the ticket opens it in no other. To open it in "
        "another than `sse`, send the argument `format` beside the ticket.",
        LOG_FORMATS,
        load_default="sse",
    )
    selection = Text(
        "For `events`: the query of /events that will be sent, without ticket and "
        "last_event_id. The stream may be opened with other values of tail and interval.",
        most=8192,
        load_default="",
    )

    path = Text(
        "For `drive`: path of the file or the folder, not percent-encoded; empty for the "
        "tenant's folder.",
        most=4095,
        load_default="",
    )

    @validates_schema
    def _has_its_subject(self, data: Mapping[str, Any], **_: Any) -> None:
        if data.get("path") and data["kind"] != "drive":
            raise ValidationError("Only allowed for drive.", "path")
        if data["kind"] in ("events", "drive"):
            if data.get("job_id"):
                instead = "selection" if data["kind"] == "events" else "path"
                raise ValidationError(
                    f"Must not be given for {data['kind']}. Use {instead}.", "job_id"
                )
            if data["kind"] == "drive" and data.get("selection"):
                raise ValidationError("Only allowed for events.", "selection")
        elif data.get("selection"):
            raise ValidationError("Only allowed for events.", "selection")
        elif not data.get("job_id"):
            raise ValidationError("Missing data for required field.", "job_id")
        if data.get("format", "sse") != "sse" and data["kind"] != "logs":
            raise ValidationError("Only allowed for logs.", "format")


class StreamTicket(Schema):
    """Its answer."""

    ticket = Text(
        "Send it as the query argument `ticket`. It can be used once and is not shown again.",
        required=True,
    )
    expires_at = Time("Time by which the ticket must be used.", required=True)
    job_id = Text(
        "Job that the ticket is for; null of the kinds `events` and `drive`.",
        required=True,
        allow_none=True,
    )
    kind = Choice("Kind of stream that the ticket is for.", STREAM_KINDS, required=True)
    format = Choice("Form that the ticket is for.", LOG_FORMATS, required=True)
    path = Text("Path that the ticket is for, of the kind `drive`; else empty.", required=True)


STREAM_TICKET_BODY = StreamTicketBody()
STREAM_TICKET = StreamTicket()
