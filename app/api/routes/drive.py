"""Files of the caller's tenant, where the gateway serves the drive."""

from aiohttp import hdrs, web

from app.api.access import requires
from app.api.app_keys import DRIVE, TRANSFERS, caller_of, request_id_of
from app.api.audit import acts_on
from app.api.delivery import ClientLeft
from app.api.drive.answers import (
    file_headers,
    folder_data,
    name_after,
    stored_data,
    version_headers,
)
from app.api.drive.paths import path_of
from app.api.drive.ranges import wanted
from app.api.drive.receiving import check_coding, receive
from app.api.drive.sending import send_file
from app.api.endpoint import Operation, query_of
from app.api.envelope import failure, success
from app.auth.tickets import Opens, StreamKind
from app.drive.drive import FoundFile, Page, PageRequest
from app.drive.paths import DrivePath
from app.drive.versions import Preconditions
from app.errors import (
    AUTH_TICKET_INVALID,
    DRIVE_BUSY,
    DRIVE_FULL,
    DRIVE_UNAVAILABLE,
    FILE_CONFLICT,
    FILE_NAME_INVALID,
    FILE_NOT_SERVED,
    PRECONDITION_FAILED,
    QUOTA_EXCEEDED,
    RANGE_NOT_SATISFIABLE,
    UNSUPPORTED_MEDIA_TYPE,
    ApiError,
)
from app.scaikey.permissions import Permission
from app.schemas.drive.files import DELETE_FILE_QUERY, DRIVE_QUERY, STORED_FILE
from app.telemetry.audit import Action

routes = web.RouteTableDef()

_PATH = "/v1/drive/{path:(?s:.*)}"
_ERRORS = (FILE_NAME_INVALID, FILE_NOT_SERVED, DRIVE_BUSY, DRIVE_UNAVAILABLE)
_OCTETS = "application/octet-stream"


def _opened_by_ticket(request: web.Request) -> Opens:
    if request.method == hdrs.METH_HEAD:
        # It would use the ticket up.
        raise ApiError(AUTH_TICKET_INVALID, "HEAD takes no ticket. Send a token.")
    return Opens(StreamKind.DRIVE, str(path_of(request)))


@routes.get(_PATH)
@requires(Permission.VIEW, ticket=_opened_by_ticket)
@Operation(
    content=(_OCTETS, "application/json"),
    statuses=(200, 206, 304),
    errors=(*_ERRORS, PRECONDITION_FAILED, RANGE_NOT_SATISFIABLE),
    query=DRIVE_QUERY,
)
async def get_file(request: web.Request) -> web.StreamResponse:
    """Get a file of the drive, or a part of it, or list a folder.

    A file is its content (`Range`, `ETag` and conditional requests as in RFC
    9110). A folder is `{"data": {"path", "uri", "entries", "next_page_token"}}`.
    """
    caller, query, path = caller_of(request), query_of(request), path_of(request)
    preconditions = Preconditions.of(request.headers)
    drive = request.app[DRIVE]
    page = PageRequest(query["page_size"], name_after(query["page_token"]))
    response: web.StreamResponse | None = None
    try:
        async with request.app[TRANSFERS].running(caller):
            found = await drive.read(caller.tenant_id, path, page)
            if isinstance(found, Page):
                return success(folder_data(caller.tenant_id, path, found))
            part = None
            try:
                response, part = _answer(request, path, found, preconditions, query["inline"])
            finally:
                if part is None:
                    found.end()
            if part is not None:
                await send_file(request, response, found, part)
            return response
    except ApiError:
        if response is not None and response.prepared:
            raise ClientLeft("the file was not sent to its end") from None
        raise


def _answer(
    request: web.Request,
    path: DrivePath,
    found: FoundFile,
    preconditions: Preconditions,
    inline: bool,
) -> tuple[web.StreamResponse, range | None]:
    """Return the answer without its body, and which bytes are its body, if it has any."""
    version = found.version
    if preconditions.unmodified(version):
        headers = version_headers(version) | {hdrs.CACHE_CONTROL: "private, no-cache"}
        return web.Response(status=304, headers=headers), None
    try:
        part = wanted(request, version)
    except ApiError as error:
        refusal = failure(error, request_id=request_id_of(request))
        refusal.headers[hdrs.CONTENT_RANGE] = f"bytes */{version.size}"
        return refusal, None
    response = web.StreamResponse(
        status=200 if part is None else 206,
        headers=file_headers(path, version, inline=inline),
    )
    if part is not None:
        response.headers[hdrs.CONTENT_RANGE] = f"bytes {part[0]}-{part[-1]}/{version.size}"
    sent = range(version.size) if part is None else part
    response.content_length = len(sent)
    return response, sent if sent and request.method != hdrs.METH_HEAD else None


@routes.put(_PATH)
@requires(Permission.MANAGE)
@Operation(
    answer=STORED_FILE,
    statuses=(200, 201),
    errors=(
        *(*_ERRORS, FILE_CONFLICT, PRECONDITION_FAILED, QUOTA_EXCEEDED, DRIVE_FULL),
        UNSUPPORTED_MEDIA_TYPE,
    ),
    raw_body=(_OCTETS,),
    action=Action.FILE_WRITE,
)
async def put_file(request: web.Request) -> web.Response:
    """Store the body as a file of the drive, as a whole or not at all.

    Missing folders are made. `If-Match` and `If-None-Match` are heeded. 201 if
    there was no file.
    """
    caller, path = caller_of(request), path_of(request)
    acts_on(request, "file", str(path))
    check_coding(request)
    preconditions = Preconditions.of(request.headers)
    drive = request.app[DRIVE]
    async with request.app[TRANSFERS].running(caller):
        await drive.check_destination(caller.tenant_id, path, preconditions)
        async with drive.staged(caller.tenant_id, path, size=request.content_length) as upload:
            await receive(request, upload.write)
            stored = await upload.store(preconditions)
    status = 201 if stored.before is None else 200
    response = success(stored_data(caller.tenant_id, path, stored.version), status=status)
    response.headers.update(version_headers(stored.version))
    return response


@routes.delete(_PATH)
@requires(Permission.MANAGE)
@Operation(
    without_content=True,
    statuses=(204,),
    errors=(*_ERRORS, FILE_CONFLICT, PRECONDITION_FAILED, DRIVE_FULL),
    query=DELETE_FILE_QUERY,
    action=Action.FILE_DELETE,
)
async def delete_file(request: web.Request) -> web.Response:
    """Delete a file of the drive, or a folder.

    A folder with something in it goes with `recursive`. `If-Match` is heeded
    for files.
    """
    caller, path = caller_of(request), path_of(request)
    acts_on(request, "file", str(path))
    await request.app[DRIVE].delete(
        caller.tenant_id,
        path,
        recursive=query_of(request)["recursive"],
        preconditions=Preconditions.of(request.headers),
    )
    return web.Response(status=204)
