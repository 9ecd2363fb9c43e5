"""Which page of a list is asked for: its order, and tokens of our own (AIP-132, AIP-158).

The cache has tokens of its own: a coordinator's token is opaque, and a list that
continues from another source would skip and repeat jobs.
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypeAlias

import orjson

from app.cache.filters import JobFilters

#: What a job is ordered by.
Place: TypeAlias = datetime | int | str

_COLUMNS: dict[str, type[Any]] = {
    "created_at": datetime,
    "updated_at": datetime,
    "name": str,
    "status": int,
    "priority": int,
}
#: What tells the cache's tokens from the coordinator's, which are its own business.
_PREFIX = "cache."


class BadPage(ValueError):
    """A page that nobody has; the text is for the caller."""


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is ordered; ties are broken by job id, in the same direction."""

    column: str = "created_at"
    descending: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `field`, `field asc` or `field desc`. Raises `BadPage`."""
        words = text.split()
        if not words:
            return cls()
        if words[0] not in _COLUMNS or words[1:] not in ([], ["asc"], ["desc"]):
            raise BadPage(
                f"order_by: must be one of {', '.join(_COLUMNS)}, optionally followed by ' desc'"
            )
        return cls(words[0], words[1:] == ["desc"])


@dataclass(frozen=True, slots=True)
class List:
    """A list that is read page by page; a token is good for the list that it was made for."""

    tenant_id: str
    filters: JobFilters
    order: Order

    def token(self, place: Place, job_id: str) -> str:
        """Make the token of the page behind this job."""
        # Times are written by orjson as they are read below.
        text = orjson.dumps([self._digest(), place, job_id])
        return _PREFIX + base64.urlsafe_b64encode(text).decode().rstrip("=")

    def read(self, token: str) -> tuple[Place, str]:
        """Undo `token`. Raises `BadPage` unless it is one of this list."""
        encoded = token.removeprefix(_PREFIX)
        try:
            parts = orjson.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
            digest, place, job_id = parts
            if digest == self._digest() and "\0" not in job_id:
                return self._place(place), job_id
        except (ValueError, TypeError):
            pass
        raise BadPage("page_token: not a token of this list. Start without one.")

    def _place(self, place: Any) -> Place:
        kind = _COLUMNS[self.order.column]
        if kind is datetime:
            return datetime.fromisoformat(place)
        if type(place) is not kind or (kind is str and "\0" in place):
            raise ValueError
        if kind is int and abs(place) >= 2**31:
            raise ValueError
        return kind(place)  # type: ignore[no-any-return]  # an int or a str, as was just checked

    def _digest(self) -> str:
        asked = [self.tenant_id, self.filters.asked(), self.order.column, self.order.descending]
        return hashlib.sha256(orjson.dumps(asked)).hexdigest()[:16]


def is_ours(token: str) -> bool:
    """Whether a token was made here."""
    return token.startswith(_PREFIX)
