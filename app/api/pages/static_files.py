"""Files of pages that the gateway serves from memory."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from aiohttp import ETag, hdrs, web

from app.api.streams.negotiation import prefers_gzip

#: By the end of a name. What has another end is not served.
_MEDIA_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
#: Kept by browsers, and asked for again only to hear that it is the same.
_CACHING = {hdrs.CACHE_CONTROL: "no-cache"}
#: Bytes below which packing gains nothing.
_WORTH_PACKING = 1024


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is served."""

    #: Its bytes, or what gzip makes of them: few ask for the other form, which is bigger.
    kept: bytes
    packed: bool
    media_type: str
    #: Its entity tag.
    tag: str

    @classmethod
    def of(cls, body: bytes, media_type: str) -> "StaticFile":
        """Tag a file by its content, and pack it once."""
        packed = len(body) >= _WORTH_PACKING
        kept = gzip.compress(body, mtime=0) if packed else body
        return cls(kept, packed, media_type, hashlib.sha256(body).hexdigest()[:32])

    def answer(self, request: web.Request) -> web.Response:
        """Answer with the file, or with 304 to who has it."""
        headers = {**_CACHING, hdrs.VARY: hdrs.ACCEPT_ENCODING}
        if ETag(self.tag) in (request.if_none_match or ()):
            response = web.Response(status=304, headers=headers)
        elif self.packed and prefers_gzip(request.headers):
            headers[hdrs.CONTENT_ENCODING] = "gzip"
            response = web.Response(body=self.kept, content_type=self.media_type, headers=headers)
        else:
            body = gzip.decompress(self.kept) if self.packed else self.kept
            response = web.Response(body=body, content_type=self.media_type, headers=headers)
        response.etag = self.tag
        return response


def load(folder: Traversable, prefix: str = "") -> dict[str, StaticFile]:
    """Read a folder's files of known kinds, also those of its folders, by path below it."""
    loaded: dict[str, StaticFile] = {}
    for each in folder.iterdir():
        if each.is_dir():
            loaded |= load(each, f"{prefix}{each.name}/")
            continue
        media_type = _MEDIA_TYPES.get(each.name[each.name.rfind(".") :])
        if media_type is not None:
            loaded[prefix + each.name] = StaticFile.of(each.read_bytes(), media_type)
    return loaded
