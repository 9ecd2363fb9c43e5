"""A gateway's address."""

from urllib.parse import urlsplit

from scaimind.errors import ScaiMindError

#: Where the API is below a gateway's address.
ROOT = "/v1/modules/scaimind"


def api_url(url: str) -> str:
    """Return the API's root of a gateway's URL, with or without the API's path.

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
    path = parts.path.rstrip("/").removesuffix(ROOT)
    return f"{parts.scheme}://{parts.netloc}{path}{ROOT}"
