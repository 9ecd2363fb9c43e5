"""The last line of a terminal, which says how far something is and is written over."""

import shutil
import sys
import threading
from types import TracebackType
from typing import Final, Self, TextIO

from scaimind.cli.output import cut

_CLEAR: Final = "\r\x1b[K"
_BAR: Final = 16
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


class StatusLine:
    """A line on standard error, where both outputs are a terminal; nothing elsewhere.

    Threads may share it. What else is printed goes through `print`, above it.
    """

    def __init__(self) -> None:
        # What a pipe leads to may print to the same terminal.
        self._on = sys.stderr.isatty() and sys.stdout.isatty()
        self._text = ""
        self._shown = False
        self._lock = threading.Lock()

    @property
    def visible(self) -> bool:
        """Whether anybody would see it."""
        return self._on

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.show("")

    def show(self, text: str) -> None:
        """Write the line, over the one before; an empty one removes it."""
        if not self._on:
            return
        with self._lock:
            self._text = text
            self._draw()

    def print(self, text: str, *, file: TextIO, finished: bool = True) -> None:
        """Print text above the line. One that is not finished keeps it away until it is."""
        if not self._on:
            print(text, file=file, end="\n" if finished else "", flush=True)
            return
        with self._lock:
            if self._shown:
                sys.stderr.write(_CLEAR)
                sys.stderr.flush()
                self._shown = False
            print(text, file=file, end="\n" if finished else "", flush=True)
            if finished:
                self._draw()

    def _draw(self) -> None:
        if self._text or self._shown:
            limit = shutil.get_terminal_size().columns - 1
            sys.stderr.write(_CLEAR + cut(self._text, limit))
            sys.stderr.flush()
        self._shown = bool(self._text)


def bar(share: float) -> str:
    """Return a bar that is filled to a share of 0 to 1."""
    eighths = round(min(max(share, 0.0), 1.0) * _BAR * 8)
    full, rest = divmod(eighths, 8)
    body = "█" * full + (_EIGHTHS[rest] if full < _BAR else "")
    return f"▕{body:<{_BAR}}▏"


def size(count: float) -> str:
    """Return a number of bytes for people: `4.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
