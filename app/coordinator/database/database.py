"""What the coordinator's rooms ask of a database, and where SQLite and PostgreSQL differ.

Statements are written once, for both, with `?` for each value. Where the two have
no common words, a `Dialect` has them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


class Rows(Protocol):
    """What a statement has returned. A row has its values by place and by name."""

    def fetchone(self) -> Any:
        """Return the next row; None behind the last."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows that are left."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Words for what the two databases say differently."""

    #: An expression for what is at a path in the JSON in a column `state`; NULL if that is
    #: damaged. The first as text, at least its first 512 characters; the second as a number.
    state_text: Callable[[str], str]
    state_number: Callable[[str], str]
    #: What is to be behind FROM for the texts of a list there, as `url.value`.
    state_urls: Callable[[str], str]
    #: A condition: a column of long texts is a text, which is to be given once for each `?`.
    equals: Callable[[str], str]
    #: A condition: a column has a text (one value) in it.
    contains: Callable[[str], str]
    #: Behind a table: an index to use. A database that knows better uses another.
    indexed_by: Callable[[str], str]
    #: Between tables that are best gone through in the order in which they are written.
    in_order: str


class Database(Protocol):
    """A connection. Every call blocks, for a bounded time.

    Raises StoreUnavailable or sqlite3.OperationalError for what may pass, and
    LeadershipLost if another coordinator may have taken the database over.
    """

    @property
    def dialect(self) -> Dialect:
        """Its words."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Rows:
        """Return what a statement returns."""

    def write(self, statement: str, values: Sequence[Any] = ..., /) -> None:
        """Have a statement executed before the transaction ends; what it raises may be raised
        there. Call within a transaction."""

    def write_each(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Do as `write` for each row of values."""

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[None]:
        """All that is written inside is stored, or none of it; with `durable` it also outlives
        a power cut from then on."""

    def close(self) -> None:
        """Close the connection."""
