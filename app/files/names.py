"""Names of files: as the system has them, as people can read them, and ones nobody can guess."""

import errno
import os
import secrets
from typing import Final

from app.shortening import shortened

#: Characters that `printable` keeps of a name; the rest is cut.
_SHOWN: Final = 512


def component(name: str) -> str:
    """Return `name` if it names an entry of a directory, and nothing else.

    Raises OSError (EINVAL) for an empty name, `.`, `..`, a path, or a NUL.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise OSError(errno.EINVAL, f"{printable(name)!r} is not the name of a file")
    return name


def unguessable(label: str = "") -> str:
    """Return a hidden name that nobody can guess; it is short, whatever it stands in for.

    `label`, of up to 128 letters, digits and dashes, tells whose it is.
    """
    return f".{secrets.token_hex(16)}{'.' if label else ''}{label}.partial"


def printable(name: str) -> str:
    """Return a name or a path as text for a log, a message or a store.

    Bytes that are not UTF-8 and characters that cannot be printed become
    escapes such as `\\xff`. A long name is cut.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
            for each in text
        )
    return shortened(text, _SHOWN)


def is_utf8(name: str) -> bool:
    """Return whether the name's bytes are UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
