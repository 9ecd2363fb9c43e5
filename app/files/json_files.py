"""Small files of JSON that are there as a whole or not at all."""

from pathlib import Path
from typing import Any, Final

import orjson

from app.files.directory import Directory, LimitReached

#: Bytes that `read_json` reads at most.
_MOST: Final = 64 * 1024 * 1024


def write_json(path: Path, value: Any) -> None:
    """Write a file that is there as a whole or not at all, a power cut included.

    Raises OSError; orjson.JSONEncodeError for what JSON cannot say.
    """
    content = orjson.dumps(value)
    with (
        Directory.open(path.parent, follow=True) as directory,
        directory.create(path.name, durable=True) as file,
    ):
        file.write(content)


def read_json(path: Path, *, limit: int = _MOST) -> dict[str, Any] | None:
    """Return what `write_json` wrote, or None if it is not there.

    Raises LimitReached if it has more than `limit` bytes, ValueError if it is
    no JSON, OSError.
    """
    try:
        with Directory.open(path.parent, follow=True) as directory:
            file = directory.open_file(path.name)
    except FileNotFoundError:
        return None
    with file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise LimitReached(f"it has more than {limit} bytes")
    value: dict[str, Any] = orjson.loads(content)
    return value
