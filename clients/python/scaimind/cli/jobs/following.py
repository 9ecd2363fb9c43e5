"""Following one job's log at a terminal or in a pipe."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import click

from scaimind.cli.jobs.progress import Progress
from scaimind.cli.jobs.statuses import exit_status
from scaimind.cli.main import INTERRUPTED, say
from scaimind.cli.output import cut, printable, steers_nothing
from scaimind.cli.status_line import StatusLine
from scaimind.cli.times import span
from scaimind.client import Client
from scaimind.core.entries import Gap, LogLine
from scaimind.core.follow import ended

_COLOURS: Final = {"ERROR": "red", "WARNING": "yellow", "DEBUG": "bright_black"}


def follow(
    made: Client,
    job_id: str,
    *,
    wait: bool,
    tail: int | None = None,
    after: str | None = None,
    as_json: bool = False,
    filters: Mapping[str, Any] | None = None,
) -> int:
    """Print a job's log; return the exit status: the job's, if `wait` follows it to its end.

    Without `tail` and `after`, all of the log.
    """
    began = time.monotonic()
    first = 1 if tail is None and after is None else None
    more = filters or {}
    lines = made.jobs.logs(job_id, follow=wait, tail=tail, first=first, after=after, **more)
    line = StatusLine()
    printer = Printer(line, as_json=as_json)
    progress = Progress(made, job_id, line)
    #: Behind what was printed: what was read and not printed yet comes again.
    place = after or ""
    try:
        if wait:
            progress.start()
        with Interrupts() as interrupts:
            for item in lines:
                with interrupts.held():
                    printer.show(item)
                    place = str(lines.cursor)
        printer.finish()
    except KeyboardInterrupt:
        progress.stop()
        printer.finish()
        _say_how_to_go_on(job_id, progress.status, place, follows=wait)
        return INTERRUPTED
    finally:
        progress.stop()
    if not wait:
        return 0
    if sys.stderr.isatty():
        say(f"{lines.status} after {span(time.monotonic() - began)}")
    return exit_status([lines.status])


class Interrupts:
    """Ctrl-C raises KeyboardInterrupt, but not while it is held: then behind that.

    A second one does not wait: what is held may be stuck.
    """

    def __init__(self) -> None:
        self._holding = False
        self._came = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Do something whole, or not at all."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._came:
            raise KeyboardInterrupt

    def _interrupt(self, _number: int, _frame: object) -> None:
        if not self._holding or self._came:
            raise KeyboardInterrupt
        self._came = True


class Printer:
    """Prints entries: as the process printed them, or each as a JSON object."""

    def __init__(self, line: StatusLine, *, as_json: bool) -> None:
        self._line = line
        self._as_json = as_json
        self._on_terminal = sys.stdout.isatty()
        #: The first piece of the line that is not finished yet, where the cursor stands.
        self._unfinished: int | None = None

    def show(self, item: LogLine | Gap) -> None:
        """Print an entry or a gap."""
        if self._as_json:
            self._print(_json(item))
        elif isinstance(item, Gap):
            self.finish()
            self._print(f"[scaimind: {printable(str(item))}]")
        else:
            self._show_line(item)

    def finish(self) -> None:
        """End a line of which only pieces have come."""
        if self._unfinished is not None:
            self._unfinished = None
            self._print("")

    def _show_line(self, line: LogLine) -> None:
        first = line.fields.get("continues", "")
        if self._unfinished is not None and first != str(self._unfinished):
            self.finish()
        more = "partial" in line.fields
        self._print(self._text(line), finished=not more)
        self._unfinished = (self._unfinished or line.offset) if more else None

    def _print(self, text: str, *, finished: bool = True) -> None:
        self._line.print(text, file=sys.stdout, finished=finished)

    def _text(self, line: LogLine) -> str:
        """Return the line's text, on a terminal coloured by its level."""
        if not self._on_terminal:
            return line.message
        text = steers_nothing(line.message)
        colour = None if os.environ.get("NO_COLOR") else _COLOURS.get(line.level)
        return text if colour is None else click.style(text, fg=colour)


def _json(item: LogLine | Gap) -> str:
    value: Mapping[str, Any]
    if isinstance(item, Gap):
        ends = {"from": item.start and str(item.start), "to": item.end and str(item.end)}
        value = {"gap": {**ends, "reason": item.reason}}
    else:
        value = {
            "offset": item.offset,
            "level": item.level,
            "message": item.message,
            "timestamp": item.timestamp,
            "source": item.source,
            "rank": item.rank,
            "node_id": item.node_id,
            "fields": item.fields,
            "epoch": item.epoch,
            **item.extra,
        }
    return json.dumps(value, ensure_ascii=False)


def _say_how_to_go_on(job_id: str, status: str, place: str, *, follows: bool) -> None:
    command = f"scaimind jobs logs{' -f' if follows else ''} {job_id}"
    # The ^C of the terminal stands in the line where the cursor is.
    say("")
    goes_on = f"is still {status}" if status and not ended(status) else "goes on"
    say(cut(f"{job_id} {goes_on}. Continue with:", shutil.get_terminal_size().columns))
    # A command must be copied whole.
    say(f"  {command}{f' --after {place}' if place else ''}")
