"""Stream tickets, for clients that cannot send a header."""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import COORDINATOR, DRIVE, TICKETS, caller_of
from app.api.audit import acts_on
from app.api.endpoint import Operation, body_of
from app.api.envelope import success, told_time
from app.api.paths import JOB_ID
from app.api.streams.selections import opens_text
from app.auth.tickets import Opens, StreamKind
from app.drive.paths import DrivePath
from app.errors import (
    AUTH_UNAVAILABLE,
    DRIVE_BUSY,
    DRIVE_UNAVAILABLE,
    FILE_NAME_INVALID,
    FILE_NOT_FOUND,
    FILE_NOT_SERVED,
    ApiError,
)
from app.scaikey.permissions import Permission
from app.schemas.tickets import STREAM_TICKET, STREAM_TICKET_BODY
from app.telemetry.audit import Action

routes = web.RouteTableDef()


@routes.post("/stream-tickets")
@requires(Permission.VIEW)
@Operation(
    rpc="GetJob",
    answer=STREAM_TICKET,
    statuses=(201,),
    errors=(
        *(AUTH_UNAVAILABLE, FILE_NOT_FOUND, FILE_NAME_INVALID, FILE_NOT_SERVED, DRIVE_BUSY),
        DRIVE_UNAVAILABLE,
    ),
    body=STREAM_TICKET_BODY,
    action=Action.STREAM_TICKET_CREATE,
)
async def create_stream_ticket(request: web.Request) -> web.Response:
    """Create a single-use ticket that opens one stream or file within a minute."""
    caller, body = caller_of(request), body_of(request)
    kind = StreamKind(body["kind"])
    job_id: str | None = None
    if kind is StreamKind.EVENTS:
        opens = opens_text(body["selection"])
    elif kind is StreamKind.DRIVE:
        opens = await _of_drive(request, body["path"])
    else:
        acts_on(request, "job", body["job_id"])
        job_id = JOB_ID.checked(body["job_id"])
        # Raises unless the caller may see it.
        await request.app[COORDINATOR].get_job(caller, job_id)
        form = body["format"]
        opens = Opens(StreamKind.of_log(form) if kind is StreamKind.LOGS else kind, job_id)
    ticket = await request.app[TICKETS].issue(caller, opens)
    data = {
        "ticket": ticket.secret,
        "expires_at": told_time(ticket.expires_at),
        "job_id": job_id,
        "kind": kind.value,
        "format": body["format"],
        "path": opens.subject if kind is StreamKind.DRIVE else "",
    }
    return success(data, status=201)


async def _of_drive(request: web.Request, text: str) -> Opens:
    """Return what a ticket for a path of the drive opens. Raises `ApiError`."""
    path = DrivePath.of(text)
    acts_on(request, "file", str(path))
    if DRIVE not in request.app:
        raise ApiError(FILE_NOT_FOUND)
    await request.app[DRIVE].find(caller_of(request).tenant_id, path)
    return Opens(StreamKind.DRIVE, str(path))
