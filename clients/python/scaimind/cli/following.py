"""Following one job's log at a terminal or in a pipe."""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import click

from scaimind.cli.main import INTERRUPTED, say
from scaimind.cli.output import cut
from scaimind.cli.statuses import exit_status
from scaimind.client import Client
from scaimind.core.follow import Gap, LogLine

_COLOURS: Final = {"ERROR": "red", "WARNING": "yellow", "DEBUG": "bright_black"}


def follow(
    made: Client,
    job_id: str,
    *,
    wait: bool,
    tail: int | None = None,
    level: str | None = None,
    after: str | None = None,
    as_json: bool = False,
) -> int:
    """Print a job's log; return the exit status: the job's, if `wait` follows it to its end."""
    began = time.monotonic()
    lines = made.jobs.logs(job_id, follow=wait, tail=tail, level=level, after=after)
    try:
        for item in lines:
            if isinstance(item, Gap):
                _say_gap(item, as_json=as_json)
            else:
                click.echo(_json(item) if as_json else _text(item))
    except KeyboardInterrupt:
        _say_how_to_go_on(job_id, str(lines.cursor or ""), follows=wait)
        return INTERRUPTED
    if not wait:
        return 0
    if sys.stderr.isatty():
        say(f"{lines.status} after {_duration(time.monotonic() - began)}")
    return exit_status([lines.status])


def _text(line: LogLine) -> str:
    """Return the line as the process printed it, coloured by its level on a terminal."""
    colour = _COLOURS.get(line.level)
    if colour is None or not sys.stdout.isatty():
        return line.message
    return click.style(line.message, fg=colour)


def _json(line: LogLine) -> str:
    value: Mapping[str, Any] = {
        "offset": line.offset,
        "level": line.level,
        "message": line.message,
        "timestamp": line.timestamp,
        "source": line.source,
        "rank": line.rank,
        "node_id": line.node_id,
        "fields": line.fields,
        "epoch": line.epoch,
    }
    return json.dumps({**value, **line.extra}, ensure_ascii=False)


def _say_gap(gap: Gap, *, as_json: bool) -> None:
    if as_json:
        value = {"gap": {"from": gap.first, "to": gap.to, "reason": gap.reason}}
        click.echo(json.dumps(value))
        return
    lines = f"from {gap.first} on" if gap.to is None else f"{gap.first} to {gap.to}"
    click.echo(f"[scaimind: lines {lines} are missing: {gap.reason}]")


def _say_how_to_go_on(job_id: str, cursor: str, *, follows: bool) -> None:
    after = f" --after {cursor}" if cursor else ""
    flag = " -f" if follows else ""
    text = f"\n{job_id} goes on. Continue with:\n  scaimind jobs logs{flag} {job_id}{after}"
    columns = shutil.get_terminal_size().columns
    for line in text.split("\n"):
        # A command must be copied whole.
        say(line if line.startswith("  ") else cut(line, columns))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}h {minutes}m" if hours else f"{minutes}m {seconds}s" if minutes else f"{seconds}s"
    )
