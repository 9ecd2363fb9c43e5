"""Following one job's log at a terminal or in a pipe."""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import click

from scaimind.cli.jobs.statuses import exit_status
from scaimind.cli.main import INTERRUPTED, say
from scaimind.cli.output import cut, printable, steers_nothing
from scaimind.cli.times import span
from scaimind.client import Client
from scaimind.core.entries import Gap, LogLine

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
    """Print a job's log; return the exit status: the job's, if `wait` follows it to its end."""
    began = time.monotonic()
    lines = made.jobs.logs(job_id, follow=wait, tail=tail, after=after, **(filters or {}))
    printer = Printer(as_json=as_json)
    try:
        for item in lines:
            printer.show(item)
        printer.finish()
    except KeyboardInterrupt:
        printer.finish()
        _say_how_to_go_on(job_id, str(lines.cursor or ""), follows=wait)
        return INTERRUPTED
    if not wait:
        return 0
    if sys.stderr.isatty():
        say(f"{lines.status} after {span(time.monotonic() - began)}")
    return exit_status([lines.status])


class Printer:
    """Prints entries: as the process printed them, or each as a JSON object."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._on_terminal = sys.stdout.isatty()
        #: The first piece of the line that is not finished yet, where the cursor stands.
        self._unfinished: int | None = None

    def show(self, item: LogLine | Gap) -> None:
        """Print an entry or a gap."""
        if self._as_json:
            click.echo(_json(item))
        elif isinstance(item, Gap):
            self.finish()
            click.echo(f"[scaimind: {printable(str(item))}]")
        else:
            self._line(item)

    def finish(self) -> None:
        """End a line of which only pieces have come."""
        if self._unfinished is not None:
            click.echo()
            self._unfinished = None

    def _line(self, line: LogLine) -> None:
        first = line.fields.get("continues", "")
        if self._unfinished is not None and first != str(self._unfinished):
            self.finish()
        more = "partial" in line.fields
        click.echo(self._text(line), nl=not more)
        self._unfinished = (self._unfinished or line.offset) if more else None

    def _text(self, line: LogLine) -> str:
        """Return the line's text, on a terminal coloured by its level."""
        if not self._on_terminal:
            return line.message
        text = steers_nothing(line.message)
        colour = _COLOURS.get(line.level)
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


def _say_how_to_go_on(job_id: str, cursor: str, *, follows: bool) -> None:
    after = f" --after {cursor}" if cursor else ""
    flag = " -f" if follows else ""
    text = f"\n{job_id} goes on. Continue with:\n  scaimind jobs logs{flag} {job_id}{after}"
    columns = shutil.get_terminal_size().columns
    for line in text.split("\n"):
        # A command must be copied whole.
        say(line if line.startswith("  ") else cut(line, columns))
