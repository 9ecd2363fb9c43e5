"""What conversions refuse."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from app.shortening import shortened

#: Characters of what a library says of a file.
_SHOWN = 300


class CannotConvert(Exception):
    """The artefacts cannot be had in that format; the message is for the caller."""


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Raise whatever hostile content makes a parser raise as CannotConvert that names the file.

    OSError of the system passes: it is about the disk, not about the content.
    """
    try:
        yield
    except CannotConvert as error:
        reason = str(error)
    except MemoryError:
        reason = "it needs more memory than a conversion may use; save it in smaller arrays"
    except OSError as error:
        # EINVAL: what the file says leads to a place before its beginning.
        if error.errno not in (None, errno.EINVAL):
            raise
        reason = _damaged(error)
    except Exception as error:
        # zipfile, zlib, tokenize and numpy raise kinds of their own for damaged content,
        # few of them documented; none is a defect of what called them.
        reason = _damaged(error)
    else:
        return
    raise CannotConvert(f"{name}: {reason}")


def _damaged(error: Exception) -> str:
    said = shortened(" ".join(str(error).split()), _SHOWN) or type(error).__name__
    return f"it is damaged, or not what its name says ({said}); write it again"
