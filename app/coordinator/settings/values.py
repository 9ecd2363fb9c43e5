"""Readers of the coordinator's own kinds of values. Each raises ValueError with a phrase."""

import re
from typing import Final

from app.configuration.values import parse_seconds, parse_size
from app.coordinator.isolation.levels import AUTO, Level, UidRange

#: The largest page of an answer is half of it.
_MOST_DAYS: Final = 36_500
_SMALLEST_MESSAGE: Final = 8 * 1024**2
_SHORTEST_LEASE: Final = 2.0
_LONGEST_LEASE: Final = 600.0


def parse_node_id(text: str) -> str:
    """Read a node's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise ValueError(f"{text!r} is not a name of letters, digits, '.', '_' and '-'")
    return text


def parse_isolation(text: str) -> str:
    """Read a level of isolation, or `auto`."""
    levels = (AUTO, *(level.value for level in Level))
    if text not in levels:
        raise ValueError(f"{text!r} is not one of {', '.join(levels)}")
    return text


def parse_network(text: str) -> str:
    """Read which network jobs have."""
    if text not in ("shared", "none"):
        raise ValueError(f"{text!r} is neither shared nor none")
    return text


def parse_engine(text: str) -> str:
    """Read what carries runs out."""
    if text not in ("local", "ray"):
        raise ValueError(f"{text!r} is neither local nor ray")
    return text


def parse_yes(text: str) -> bool:
    """Read `yes` or `no`; a TOML file may say `true` or `false`."""
    value = {"yes": True, "true": True, "no": False, "false": False}.get(text.lower())
    if value is None:
        raise ValueError(f"{text!r} is neither yes nor no")
    return value


def parse_uids(text: str) -> UidRange:
    """Read a range of user ids, first and last."""
    first, dash, last = text.partition("-")
    if not dash or not first.isdecimal() or not last.isdecimal():
        raise ValueError(f"{text!r} is not of the form <first>-<last>")
    found = UidRange(int(first), int(last))
    if not 0 < found.first <= found.last < 2**32 - 1:
        raise ValueError(f"{text!r} is not a range of user ids above 0")
    return found


def parse_days(text: str) -> int:
    """Read a number of days, up to a hundred years."""
    if not text.isdecimal() or int(text) > _MOST_DAYS:
        raise ValueError(f"{text!r} is not a number of days up to {_MOST_DAYS}")
    return int(text)


def parse_message_size(text: str) -> int:
    """Read a size that the coordinator's own answers fit in."""
    size = parse_size(text)
    if size < _SMALLEST_MESSAGE:
        raise ValueError(f"{text!r} is below 8MiB, which the coordinator's own answers may need")
    return size


def parse_schema(text: str) -> str:
    """Read the name of a schema of PostgreSQL, which needs no quotes."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", text) or text.startswith("pg_"):
        raise ValueError(
            f"{text!r} is not a name of lower-case letters, digits and '_' that PostgreSQL allows"
        )
    return text


def parse_lease(text: str) -> float:
    """Read how long a lease lasts, in seconds."""
    seconds = parse_seconds(text)
    if not _SHORTEST_LEASE <= seconds <= _LONGEST_LEASE:
        raise ValueError(f"{text!r} is not from {_SHORTEST_LEASE:g} to {_LONGEST_LEASE:g}")
    return seconds
