"""Resumable uploads to the drive, as tus 1.0.0 has them."""

from functools import partial

from aiohttp import hdrs, web

from app.api.access import public, requires
from app.api.app_keys import ANSWER_HEADERS, TRANSFERS, UPLOADS, caller_of
from app.api.audit import acts_as, acts_on, has_created
from app.api.drive import tus
from app.api.drive.answers import version_headers
from app.api.drive.receiving import receive
from app.api.endpoint import Operation
from app.api.paths import UPLOAD_ID
from app.caller import Caller
from app.drive.paths import DrivePath
from app.drive.uploads import UploadInfo, UploadWriting
from app.drive.versions import Preconditions
from app.errors import (
    DRIVE_BUSY,
    DRIVE_FULL,
    DRIVE_UNAVAILABLE,
    FILE_CONFLICT,
    FILE_NAME_INVALID,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    PAYLOAD_TOO_LARGE,
    PRECONDITION_FAILED,
    QUOTA_EXCEEDED,
    UNSUPPORTED_MEDIA_TYPE,
    UPLOAD_CHECKSUM_MISMATCH,
    UPLOAD_LOCKED,
    UPLOAD_OFFSET_CONFLICT,
    ApiError,
)
from app.scaikey.permissions import Permission
from app.schemas.drive.uploads import CREATE_UPLOAD_HEADERS, UPLOAD_HEADERS, WRITE_UPLOAD_HEADERS
from app.telemetry.audit import Action

routes = web.RouteTableDef()

_UPLOAD = tus.UPLOADS_PATH + "{upload_id}"
_STORING = (
    *(FILE_CONFLICT, PRECONDITION_FAILED, QUOTA_EXCEEDED, DRIVE_FULL, DRIVE_BUSY),
    *(PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, UPLOAD_CHECKSUM_MISMATCH, UPLOAD_LOCKED),
    *(UPLOAD_OFFSET_CONFLICT, DRIVE_UNAVAILABLE),
)


@routes.options(tus.UPLOADS_PATH)
@public
@Operation(without_content=True, statuses=(204,))
async def describe_uploads(request: web.Request) -> web.Response:
    """Get what the server can do, as headers."""
    preflight = request.app[ANSWER_HEADERS].preflight(asked=request.headers, methods="OPTIONS,POST")
    headers = {**preflight, **tus.options(request.app[UPLOADS].max_size)}
    return web.Response(status=204, headers=headers)


@routes.post(tus.UPLOADS_PATH)
@requires(Permission.MANAGE)
@Operation(
    without_content=True,
    statuses=(201,),
    errors=(FILE_NAME_INVALID, *_STORING),
    headers=CREATE_UPLOAD_HEADERS,
    raw_body=(tus.CONTENT_TYPE,),
    action=Action.UPLOAD_CREATE,
)
async def create_upload(request: web.Request) -> web.Response:
    """Start an upload; its URL is in the header `Location`.

    The metadata `path`, or else `filename`, says where the file goes. The body
    may be the beginning of it.
    """
    tus.check_version(request)
    caller = caller_of(request)
    length = tus.length_of(request)
    written, metadata = tus.metadata_of(request)
    named = metadata.get("path") or metadata.get("filename")
    if not named:
        raise ApiError(MALFORMED_REQUEST, f"{tus.METADATA} has to have the file's path.")
    path = DrivePath.of(named)
    acts_on(request, "file", str(path))
    Preconditions.of(request.headers)
    with_content = request.body_exists and request.content_length != 0
    if with_content:
        tus.check_content_type(request)
    uploads = request.app[UPLOADS]
    info = UploadInfo.new(
        path,
        length=length,
        metadata=written,
        if_match=request.headers.get(hdrs.IF_MATCH),
        if_none_match=request.headers.get(hdrs.IF_NONE_MATCH),
    )
    state = await uploads.create(caller.tenant_id, path, info)
    upload_id = info.upload_id
    has_created(request, upload_id)
    headers: dict[str, str] = {hdrs.LOCATION: tus.UPLOADS_PATH + upload_id}
    if with_content or length == 0:
        headers |= await _write(request, caller, upload_id, offset=0)
    else:
        headers |= tus.state_headers(state)
    return web.Response(status=201, headers=headers)


@routes.head(_UPLOAD)
@requires(Permission.MANAGE)
@Operation(without_content=True, statuses=(200,), errors=_STORING, headers=UPLOAD_HEADERS)
async def get_upload(request: web.Request) -> web.Response:
    """Get how much of an upload has come, as headers."""
    tus.check_version(request)
    state = await request.app[UPLOADS].state(caller_of(request).tenant_id, UPLOAD_ID.of(request))
    return web.Response(headers=tus.state_headers(state))


@routes.patch(_UPLOAD)
@requires(Permission.MANAGE)
@Operation(
    without_content=True,
    statuses=(204,),
    errors=_STORING,
    headers=WRITE_UPLOAD_HEADERS,
    raw_body=(tus.CONTENT_TYPE,),
    action=Action.UPLOAD_WRITE,
)
async def write_upload(request: web.Request) -> web.Response:
    """Go on with an upload; its last byte puts the file into its place."""
    tus.check_version(request)
    tus.check_content_type(request)
    offset = tus.number(request, tus.OFFSET)
    upload_id = UPLOAD_ID.of(request)
    headers = await _write(request, caller_of(request), upload_id, offset=offset)
    return web.Response(status=204, headers=headers)


@routes.delete(_UPLOAD)
@requires(Permission.MANAGE)
@Operation(
    without_content=True,
    statuses=(204,),
    errors=(PRECONDITION_FAILED, DRIVE_BUSY, DRIVE_UNAVAILABLE, UPLOAD_LOCKED),
    headers=UPLOAD_HEADERS,
    action=Action.UPLOAD_TERMINATE,
)
async def terminate_upload(request: web.Request) -> web.Response:
    """End an upload; what has come of it is deleted."""
    tus.check_version(request)
    await request.app[UPLOADS].remove(caller_of(request).tenant_id, UPLOAD_ID.of(request))
    return web.Response(status=204)


@routes.post(_UPLOAD)
@requires(Permission.MANAGE)
@Operation(
    without_content=True,
    statuses=(204,),
    errors=(*_STORING, METHOD_NOT_ALLOWED),
    headers=WRITE_UPLOAD_HEADERS,
    raw_body=(tus.CONTENT_TYPE,),
    action=Action.UPLOAD_WRITE,
)
async def override_method(request: web.Request) -> web.StreamResponse:
    """Do what `X-HTTP-Method-Override` says: for clients that cannot send `PATCH` or `DELETE`."""
    method = request.headers.get(tus.METHOD_OVERRIDE)
    if method == hdrs.METH_PATCH:
        return await write_upload(request)
    if method == hdrs.METH_DELETE:
        acts_as(request, Action.UPLOAD_TERMINATE)
        return await terminate_upload(request)
    raise ApiError(
        METHOD_NOT_ALLOWED, f"POST needs the header {tus.METHOD_OVERRIDE}: PATCH or DELETE."
    )


async def _write(
    request: web.Request, caller: Caller, upload_id: str, *, offset: int | None
) -> dict[str, str]:
    """Take the body of an upload from this offset on; returns how far it is then."""
    checksum = tus.Checksum(request)
    uploads = request.app[UPLOADS]
    async with (
        request.app[TRANSFERS].running(caller),
        uploads.writing(caller.tenant_id, upload_id, whole=checksum.given) as upload,
    ):
        await _begin(request, upload, offset)
        if not upload.finished:
            await receive(
                request,
                partial(upload.write, check=checksum.update),
                keep=not checksum.given,
            )
            if not checksum.matches():
                raise ApiError(UPLOAD_CHECKSUM_MISMATCH)
            await upload.sync()
            await upload.finish_if_complete()
        state = await upload.state()
        headers = tus.state_headers(state)
        if upload.stored is not None:
            headers |= version_headers(upload.stored.version)
        return headers


async def _begin(request: web.Request, upload: UploadWriting, offset: int | None) -> None:
    """Refuse a body that does not continue the upload, or is more than it has."""
    state = await upload.state()
    if offset != state.offset:
        raise ApiError(
            UPLOAD_OFFSET_CONFLICT, f"The upload continues at offset {state.offset}, not there."
        )
    length = state.info.length
    if length is None and request.method != hdrs.METH_POST:
        length = tus.number(request, tus.LENGTH)
        if length is not None:
            if length < state.offset:
                raise ApiError(PAYLOAD_TOO_LARGE, "More has come than the file is to have.")
            await upload.set_length(length)
    if length is not None and state.offset + (request.content_length or 0) > length:
        raise ApiError(
            PAYLOAD_TOO_LARGE, f"The upload has {length} bytes, and {state.offset} have come."
        )
