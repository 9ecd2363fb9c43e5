"""How the texts of single settings are read."""

import math
import os
import re
from pathlib import Path
from typing import Final

from app.coordinator.isolation.levels import AUTO, Level, UidRange


def parse_address(text: str) -> str:
    """A place to listen on. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not of the form <host>:<port>")
    return text


def parse_seconds(text: str) -> float:
    """A time over 0. Raises ValueError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds over 0")
    return value


def parse_patience(text: str) -> float:
    """A time, or 0. Raises ValueError."""
    return 0.0 if text.strip() == "0" else parse_seconds(text)


def parse_size_or_none(text: str) -> int:
    """A size, or 0. Raises ValueError."""
    return 0 if text.strip() == "0" else parse_size(text)


def parse_node_id(text: str) -> str:
    """A node's name. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise ValueError(f"{text!r} is not a name of letters, digits, '.', '_' and '-'")
    return text


def parse_isolation(text: str) -> str:
    """A level of isolation, or `auto`. Raises ValueError."""
    levels = (AUTO, *(level.value for level in Level))
    if text not in levels:
        raise ValueError(f"{text!r} is none of {', '.join(levels)}")
    return text


def parse_network(text: str) -> str:
    """What network jobs have. Raises ValueError."""
    if text not in ("shared", "none"):
        raise ValueError(f"{text!r} is neither shared nor none")
    return text


def parse_uids(text: str) -> UidRange:
    """User ids, first and last. Raises ValueError."""
    first, dash, last = text.partition("-")
    if not dash or not first.isdecimal() or not last.isdecimal():
        raise ValueError(f"{text!r} is not of the form <first>-<last>")
    found = UidRange(int(first), int(last))
    if not 0 < found.first <= found.last < 2**32 - 1:
        raise ValueError(f"{text!r} is no range of user ids above 0")
    return found


def parse_path(text: str) -> Path:
    """A path; a relative one is below the current folder."""
    return Path(text).absolute()


def parse_paths(text: str) -> tuple[Path, ...]:
    """Absolute paths, joined like those of PATH. Raises ValueError."""
    paths = tuple(Path(part) for part in text.split(os.pathsep) if part)
    if relative := [path for path in paths if not path.is_absolute()]:
        raise ValueError(f"{str(relative[0])!r} is not an absolute path")
    return paths


def parse_url(text: str) -> str:
    """An HTTP URL. Raises ValueError."""
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        raise ValueError(f"{text!r} is not an http:// or https:// URL")
    return text


def parse_secret(text: str) -> str:
    """A secret that gRPC metadata can carry. Raises ValueError."""
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", text):
        raise ValueError("it is not printable ASCII, or a space is at one of its ends")
    return text


def read_secret(path: str) -> str:
    """What a secret's file holds. Raises ValueError."""
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8") from None
    if not secret:
        raise ValueError("the file is empty")
    return secret


_GIB: Final = 1024**3


_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": _GIB, "T": 1024**4}


def parse_size(text: str) -> int:
    """Bytes: a number, optionally with K, M, G or T (powers of 1024). Raises ValueError."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a size such as 512MiB")
    return int(match[1]) * _UNITS[match[2]]


#: Room for the largest page, which is half of it.
_SMALLEST_MESSAGE: Final = 8 * 1024**2


def parse_message_size(text: str) -> int:
    """A size that the coordinator's own answers fit in. Raises ValueError."""
    size = parse_size(text)
    if size < _SMALLEST_MESSAGE:
        raise ValueError(f"{text!r} is below 8MiB, which the coordinator's own answers may need")
    return size


def parse_count(text: str) -> int:
    """A whole number over 0. Raises ValueError."""
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{text!r} is not a count of 1 or more")
    return int(text)
