"""Console sessions."""

from marshmallow import Schema

from app.schemas.fields import Text, Time
from app.schemas.loading import Body


class ConsoleSessionBody(Body):
    """`POST /console-sessions`."""

    code = Text("The code of `POST /console-codes`.", required=True, most=128)


class ConsoleCode(Schema):
    """The answer of `POST /console-codes`."""

    code = Text(
        "Open `/console#code=CODE` with it, or exchange it at `POST /console-sessions`. It can be "
        "used once and is not shown again.",
        required=True,
    )
    expires_at = Time("Time by which the code must be used.", required=True)


class ConsoleSession(Schema):
    """The answer of `POST /console-sessions`."""

    token = Text(
        "Send it as the bearer token. It has the rights of the token that the code was made with.",
        required=True,
    )
    expires_at = Time("Time at which the session ends at the latest.", required=True)


class EndedConsoleSession(Schema):
    """The answer of `DELETE /console-sessions/current`: nothing more than that it ended."""


CONSOLE_SESSION_BODY = ConsoleSessionBody()
CONSOLE_CODE = ConsoleCode()
CONSOLE_SESSION = ConsoleSession()
ENDED_CONSOLE_SESSION = EndedConsoleSession()
