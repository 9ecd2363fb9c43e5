"""Ids in paths. One that no resource can have is answered like one that none has.

What else exists is the coordinator's affair: only length and control characters are
bounded here, so that an id may be `gpu@rack1`, or `rack1/node3` percent-encoded.
"""

import re
from dataclasses import dataclass

from aiohttp import web

from app.errors import (
    EVALUATION_NOT_FOUND,
    FILE_NOT_FOUND,
    JOB_NOT_FOUND,
    NODE_NOT_FOUND,
    UPLOAD_NOT_FOUND,
    ApiError,
    ErrorKind,
)
from app.schemas.ids import ID_FORM


@dataclass(frozen=True, slots=True)
class PathId:
    """The id of one kind of resource, as a variable part of a path."""

    name: str
    missing: ErrorKind
    #: What it may be, for the API's document.
    form: str = ID_FORM

    def of(self, request: web.Request) -> str:
        """Return the id. Raises `ApiError` of the kind `missing` if nothing can have it."""
        return self.checked(request.match_info[self.name])

    def checked(self, value: str) -> str:
        """Return the id as it is. Raises `ApiError` like `of`."""
        if not re.fullmatch(self.form, value):
            raise ApiError(self.missing)
        return value


JOB_ID = PathId("job_id", JOB_NOT_FOUND)
NODE_ID = PathId("node_id", NODE_NOT_FOUND)
EVALUATION_ID = PathId("evaluation_id", EVALUATION_NOT_FOUND)
#: It may have slashes; `app.api.drive.paths` reads it.
DRIVE_PATH = PathId("path", FILE_NOT_FOUND, form=r"[^\x00]{0,4095}")
UPLOAD_ID = PathId("upload_id", UPLOAD_NOT_FOUND, form=r"[A-Za-z0-9_-]{22}")

#: Every one, by the name that it has in a path.
PATH_IDS = {each.name: each for each in (JOB_ID, NODE_ID, EVALUATION_ID, DRIVE_PATH, UPLOAD_ID)}
