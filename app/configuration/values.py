"""Readers of single values, for `parsed` settings. Each raises ValueError with a phrase."""

import math
import os
import re
from pathlib import Path
from typing import Final

_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def parse_address(text: str) -> str:
    """Read a place to listen on, `<host>:<port>`."""
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not of the form <host>:<port>")
    return text


def parse_bucket_url(text: str) -> str:
    """Read a place in an object store; returns it without a slash at its end."""
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?", text):
        raise ValueError(f"{text!r} is not of the form s3://<bucket>/<prefix>")
    return text.rstrip("/")


def parse_count(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{text!r} is not a count of 1 or more")
    return int(text)


def parse_path(text: str) -> Path:
    """Read a path; a relative one is below the working directory."""
    return Path(text).absolute()


def parse_paths(text: str) -> tuple[Path, ...]:
    """Read absolute paths, joined like those of PATH."""
    paths = tuple(Path(part) for part in text.split(os.pathsep) if part)
    if relative := [path for path in paths if not path.is_absolute()]:
        raise ValueError(f"{str(relative[0])!r} is not an absolute path")
    return paths


def parse_secret(text: str) -> str:
    """Read a secret that gRPC metadata can carry. The problem never contains it."""
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", text):
        raise ValueError("it must be printable ASCII without spaces at its ends")
    return text


def parse_seconds(text: str) -> float:
    """Read a time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds above 0")
    return value


def parse_seconds_or_zero(text: str) -> float:
    """Read a time of 0 or more."""
    return 0.0 if _is_zero(text) else parse_seconds(text)


def parse_size(text: str) -> int:
    """Read bytes: a number above 0, optionally with K, M, G or T (powers of 1024), B or iB."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a size such as 512MiB")
    return int(match[1]) * _UNITS[match[2]]


def parse_size_or_zero(text: str) -> int:
    """Read a size of 0 or more."""
    return 0 if text.strip() == "0" else parse_size(text)


def parse_url(text: str) -> str:
    """Read an HTTP URL."""
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        raise ValueError(f"{text!r} is not an http:// or https:// URL")
    return text


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False
