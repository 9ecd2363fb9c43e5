"""In which form a log is asked for: by the argument `format`, or else by `Accept`.

Whatever is not one of the others is Server-Sent Events: a browser's address line,
curl and clients of earlier versions send no header that means anything.
"""

from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web
from multidict import MultiMapping

from app.api.streams.negotiation import weighted
from app.hub.core.forms import FormName

#: By preference of the server: the first of those that the client likes best.
MEDIA_TYPES: Final[Mapping[FormName, tuple[str, ...]]] = {
    FormName.SSE: ("text/event-stream",),
    FormName.NDJSON: ("application/x-ndjson", "application/ndjson", "application/jsonl"),
    FormName.TEXT: ("text/plain",),
}

#: What the answer depends on.
VARY: Final = "Accept, Accept-Encoding"


def form_of_request(request: web.Request) -> FormName:
    """Return the form that a request asks for; SSE if what it asks for is unknown."""
    named = request.query.get("format")
    if named is not None:
        return FormName(named) if named in set(FormName) else FormName.SSE
    return negotiated(request.headers)


def negotiated(headers: MultiMapping[str]) -> FormName:
    """Return the form that `Accept` prefers (RFC 9110, 12.5.1)."""
    ranges = dict(weighted(headers, hdrs.ACCEPT))
    best, most = FormName.SSE, 0.0
    for form, media_types in MEDIA_TYPES.items():
        weight = max(_weight(ranges, media_type) for media_type in media_types)
        if weight > most:
            best, most = form, weight
    return best


def _weight(ranges: Mapping[str, float], media_type: str) -> float:
    """Return the weight of the most specific range that a media type is in."""
    group = media_type.partition("/")[0]
    for each in (media_type, f"{group}/*", "*/*"):
        if each in ranges:
            return ranges[each]
    return 0.0
