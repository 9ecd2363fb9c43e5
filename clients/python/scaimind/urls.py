"""A gateway's address."""

from urllib.parse import urlsplit

from scaimind.core.commands import API
from scaimind.errors import ScaiMindError


def address(url: str) -> str:
    """Return a gateway's address, of a URL with or without the API's path.

    Raises `ScaiMindError` if it is no http or https URL, or carries a user.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise ScaiMindError(
            f"{url!r} is no URL of a gateway; one looks like https://gateway.example"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise ScaiMindError("The gateway's URL must have no user, query or fragment.")
    path = parts.path.rstrip("/").removesuffix(API)
    return f"{parts.scheme}://{parts.netloc}{path}"
