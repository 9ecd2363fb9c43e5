"""Stream tickets."""

from marshmallow import Schema

from app.schemas.fields import Choice, Text, Time
from app.schemas.ids import Id
from app.schemas.loading import Body

STREAM_KINDS = ("logs", "metrics")


class StreamTicketBody(Body):
    """`POST /stream-tickets`."""

    job_id = Id("Job to watch.", required=True)
    kind = Choice(
        "Kind of stream: `logs` is /jobs/{job_id}/logs, `metrics` is "
        "/jobs/{job_id}/metrics/stream.",
        STREAM_KINDS,
        required=True,
    )


class StreamTicket(Schema):
    """Its answer."""

    ticket = Text(
        "Send it as the query argument `ticket`. It can be used once and is not shown again.",
        required=True,
    )
    expires_at = Time("Time by which the ticket must be used.", required=True)
    job_id = Text("Job that the ticket is for.", required=True)
    kind = Choice("Kind of stream that the ticket is for.", STREAM_KINDS, required=True)


STREAM_TICKET_BODY = StreamTicketBody()
STREAM_TICKET = StreamTicket()
