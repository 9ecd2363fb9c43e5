"""Times as people write and read them: `3h`."""

from datetime import UTC, datetime, timedelta
from typing import Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Take an option as seconds: `90`, `90s`, `10m`, `2h` or `1d`."""
    if value is None:
        return None
    try:
        return seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def moment(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Take an option as a time in RFC 3339: so it is written, or as how long ago, `10m`."""
    if value is None:
        return None
    try:
        return (datetime.now(UTC) - timedelta(seconds=seconds(value))).isoformat()
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is no time; one looks like 10m or 2026-11-27T09:00:00Z."
        ) from error
    # Without a zone it is the time of the person who wrote it.
    return found.astimezone(UTC).isoformat()


def seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `10m`, `2h` or `1d`. Raises ValueError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS and text else (text, "s")
    value = float(number) if number.replace(".", "", 1).isdigit() and number.isascii() else -1.0
    if not 0 <= value < 1e9:
        raise ValueError(f"{text!r} is no time; one looks like 90s, 10m or 2h.")
    return value * _UNITS[unit]


def age(when: datetime | None) -> str:
    """Return how long ago a moment was: `3h`."""
    if when is None:
        return ""
    passed = max((datetime.now(UTC) - when).total_seconds(), 0)
    for unit in ("d", "h", "m"):
        if passed >= _UNITS[unit]:
            return f"{int(passed // _UNITS[unit])}{unit}"
    return f"{int(passed)}s"


def span(length: float) -> str:
    """Return a length of time in seconds for people: `27m 41s`."""
    minutes, left = divmod(round(length), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {left}s" if minutes else f"{left}s"
