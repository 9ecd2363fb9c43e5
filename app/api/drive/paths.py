"""The path of a file in a request's URL."""

from aiohttp import web

from app.drive.paths import DrivePath
from app.errors import FILE_NAME_INVALID, ApiError

FILES = "/v1/drive/"


def path_of(request: web.Request) -> DrivePath:
    """Read the path behind `/v1/drive/`, as the client sent it. Raises `ApiError`."""
    url = request.rel_url
    if url.raw_fragment:
        raise ApiError(FILE_NAME_INVALID, "The path has a '#'. Write it as '%23'.")
    # The router decodes more than once where an escape stands for a '%'.
    _, _, _, path = url.raw_path.split("/", 3)
    return DrivePath.decoded(path)
