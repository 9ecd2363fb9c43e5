"""Headers and bodies of the drive's answers."""

import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import quote

from aiohttp import hdrs

from app.drive.drive import Item, Page
from app.drive.paths import DrivePath
from app.drive.versions import Version
from app.errors import VALIDATION_ERROR, ApiError, FieldProblem

_OCTETS: Final = "application/octet-stream"
_TEXT: Final = "text/plain; charset=utf-8"
#: What a browser may show, by the ending of a name: nothing that has a script in it.
_INLINE: Final = {
    "avif": "image/avif",
    "gif": "image/gif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "json": "application/json",
    **dict.fromkeys(("cfg", "csv", "ini", "jsonl", "log", "md", "ndjson"), _TEXT),
    **dict.fromkeys(("py", "sh", "toml", "tsv", "txt", "yaml", "yml"), _TEXT),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def file_headers(path: DrivePath, version: Version, *, inline: bool) -> dict[str, str]:
    """Return the headers of a file: a browser saves it, or shows it without running anything."""
    ending = path.name.rpartition(".")[2].lower() if inline else ""
    shown = _INLINE.get(ending)
    return {
        hdrs.CONTENT_TYPE: shown or _OCTETS,
        hdrs.CONTENT_DISPOSITION: "inline" if shown else _attachment(path.name),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        hdrs.CACHE_CONTROL: "private, no-cache",
        hdrs.ACCEPT_RANGES: "bytes",
        **version_headers(version),
    }


def version_headers(version: Version) -> dict[str, str]:
    """Return the headers that tell which version it is."""
    headers: dict[str, str] = {hdrs.ETAG: version.tag}
    # A file's time is what its owner sets it to. RFC 9110, 8.8.2.1: not in the future.
    if (modified := min(version.modified_s, int(time.time()))) >= 0:
        headers[hdrs.LAST_MODIFIED] = formatdate(modified, usegmt=True)
    return headers


def folder_data(tenant_id: str, path: DrivePath, page: Page) -> dict[str, Any]:
    """Return a page of a folder as JSON has it."""
    more = page.more_after
    return {
        "path": str(path),
        "uri": _uri(tenant_id, path),
        "entries": [_entry(item) for item in page.items],
        "next_page_token": "" if more is None else urlsafe_b64encode(more).decode(),
    }


def name_after(page_token: str) -> bytes:
    """Read a page token. Raises `ApiError`."""
    try:
        return urlsafe_b64decode(page_token.encode("ascii"))
    except ValueError:
        problem = FieldProblem("page_token", "Must be the next_page_token of a page.")
        raise ApiError(VALIDATION_ERROR, details=[problem]) from None


def stored_data(tenant_id: str, path: DrivePath, version: Version) -> dict[str, Any]:
    """Return a file that was stored as JSON has it."""
    return {
        "path": str(path),
        "uri": _uri(tenant_id, path),
        "size_bytes": version.size,
        "modified_at": _time(version.modified_ns),
        "etag": version.tag,
    }


def _uri(tenant_id: str, path: DrivePath) -> str:
    """Return how a submission names it: its names are written as they are."""
    return f"scaidrive://{tenant_id}/{path}"


def _entry(item: Item) -> dict[str, Any]:
    version = item.version
    return {
        "name": item.name,
        "kind": item.kind,
        "size_bytes": None if version is None else version.size,
        "modified_at": _time(item.modified_ns),
        "etag": None if version is None else version.tag,
        "addressable": item.addressable,
    }


def _time(ns: int | None) -> str | None:
    if ns is None:
        return None
    try:
        moment = _EPOCH + timedelta(microseconds=ns // 1000)
    except OverflowError:
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _attachment(name: str) -> str:
    """Name the file for who saves it (RFC 6266), with nothing in it that ends the header."""
    plain = re.sub(r"[^A-Za-z0-9._ +-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
