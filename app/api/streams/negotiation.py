"""What a client prefers, by its headers (RFC 9110, 12.4)."""

from collections.abc import Iterator

from aiohttp import hdrs
from multidict import MultiMapping


def prefers_gzip(headers: MultiMapping[str]) -> bool:
    """Whether `Accept-Encoding` names gzip, and nothing before it (RFC 9110, 12.5.3).

    A client that sends none is not sent any: it may not know of codings.
    """
    codings = dict(weighted(headers, hdrs.ACCEPT_ENCODING))
    others = codings.get("*", 0.0)
    weight = max(codings.get("gzip", others), codings.get("x-gzip", 0.0))
    # What is not named, nor excluded, is accepted; gzip, which is named, is liked better.
    return weight > 0 and weight >= codings.get("identity", 0.0)


def weighted(headers: MultiMapping[str], name: str) -> Iterator[tuple[str, float]]:
    """The elements of a header with their weights; one that is not well-formed has none."""
    for element in ",".join(headers.getall(name, ())).lower().split(","):
        value, *parameters = (part.strip() for part in element.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, text = parameter.partition("=")
            if key.strip() == "q":
                weight = _quality(text.strip())
        if value:
            yield value, weight


def _quality(text: str) -> float:
    if not text or len(text) > 5 or set(text) - set("0123456789."):
        return 0.0
    try:
        return min(float(text), 1.0)
    except ValueError:
        return 0.0
