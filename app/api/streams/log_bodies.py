"""A log as one body of text or NDJSON: its headers."""

import re
from typing import Final

from aiohttp import hdrs, web

from app.api.streams.log_forms import MEDIA_TYPES
from app.hub.core.forms import FormName

_UNFIT_FOR_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME: Final = 100


class LogBody(web.StreamResponse):
    """A log as text or NDJSON. `packed` is one in gzip, `name` that of an attachment."""

    def __init__(self, form: FormName, *, packed: bool, name: str | None) -> None:
        super().__init__()
        media_type = MEDIA_TYPES[form][0]
        if form is FormName.TEXT:
            media_type += "; charset=utf-8"
        self.headers[hdrs.CONTENT_TYPE] = media_type
        self.headers[hdrs.CONNECTION] = "close"
        self.headers["X-Accel-Buffering"] = "no"
        if packed:
            self.headers[hdrs.CONTENT_ENCODING] = "gzip"
        if name is not None:
            self.headers[hdrs.CONTENT_DISPOSITION] = f'attachment; filename="{name}"'


def file_name(job_id: str, ending: str) -> str:
    """Return the name of a file for a job, made of its id alone: of letters, digits, - and _."""
    return f"{_UNFIT_FOR_A_NAME.sub('_', job_id)[:_LONGEST_NAME]}.{ending}"
