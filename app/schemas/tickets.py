"""Stream tickets."""

from marshmallow import Schema

from app.schemas.fields import Choice, Text, Time
from app.schemas.loading import Body

STREAM_KINDS = ("logs", "metrics")


class StreamTicketBody(Body):
    """`POST /stream-tickets`."""

    job_id = Text("The job that is to be watched.", most=128, required=True)
    kind = Choice(
        "Which of its streams: `logs` is /jobs/{job_id}/logs, `metrics` is "
        "/jobs/{job_id}/metrics/stream.",
        STREAM_KINDS,
        required=True,
    )


class StreamTicket(Schema):
    """Its answer."""

    ticket = Text(
        "To be sent as the query argument `ticket`, once; shown this once.", required=True
    )
    expires_at = Time("By when it has to be used.", required=True)
    job_id = Text("The job that it is for.", required=True)
    kind = Choice("The kind of stream that it is for.", STREAM_KINDS, required=True)


STREAM_TICKET_BODY = StreamTicketBody()
STREAM_TICKET = StreamTicket()
