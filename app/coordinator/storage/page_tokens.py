"""Page tokens (AIP-158): the place behind which a page begins, for one request and no other."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

from app.coordinator.errors import InvalidArgument

#: Characters; the longest has a job's name of 256 characters, each escaped.
_MAX_TOKEN: Final = 4096
#: SQLite's integers; orjson reads up to 2^64, and what is larger as a fraction.
_INT64: Final = 2**63


def make_token(asked: Sequence[Any], *place: int | str) -> str:
    """The token of a place in the list that `asked` stands for."""
    text = orjson.dumps([_digest(asked), *place])
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def read_token(token: str, asked: Sequence[Any], *kinds: type) -> list[Any]:
    """The place that a token stands for: values of these `kinds`, integers of 64 bits and texts.

    Raises InvalidArgument unless `make_token` could have made it for `asked`.
    """
    try:
        if len(token) > _MAX_TOKEN:
            raise ValueError
        parts: list[Any] = orjson.loads(
            base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        )
        made_for, *place = parts
        # By their types: a bool is no integer here.
        if made_for != _digest(asked) or [type(each) for each in place] != list(kinds):
            raise ValueError
        if any(isinstance(each, int) and not -_INT64 <= each < _INT64 for each in place):
            raise ValueError
    except (ValueError, TypeError):
        raise InvalidArgument(
            "page_token",
            "it is not from a response to this request; omit it to start at the first page",
        ) from None
    return place


def _digest(asked: Sequence[Any]) -> str:
    return hashlib.sha256(orjson.dumps(list(asked))).hexdigest()[:16]
