"""The command that shows jobs as they change."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from scaimind import models
from scaimind.cli.jobs.statuses import STATUSES
from scaimind.cli.output import printable
from scaimind.cli.session import client, resolve
from scaimind.cli.times import age

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS = {
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "PREEMPTED": "yellow",
    "PAUSED": "yellow",
    "TRAINING": "cyan",
}


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB...]")
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(STATUSES, case_sensitive=False),
    help="Only jobs in this state; may be given several times.",
)
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="Only jobs with this label.")
@click.option("--user", multiple=True, metavar="USER", help="Only this user's jobs.")
@click.option(
    "--ended-after",
    metavar="TIME",
    help="Also jobs that ended since: 1d, or a date; 1h if not set.",
)
@click.pass_obj
def watch(profile: str | None, /, job_ids: tuple[str, ...], **given: Any) -> None:
    """Show jobs in a table that is always current, until Ctrl-C.

    Those that have not ended, and those that did in the last hour. New jobs join
    by themselves. In a pipe each change is a line: job, status, step, loss, name.

    \b
    scaimind jobs watch
    scaimind jobs watch --label team=nlp
    """
    with client(profile) as made:
        events = made.events(
            job_id=[resolve(made, each) for each in job_ids] or None,
            status=given["status"] or None,
            label=given["label"] or None,
            user_id=given["user"] or None,
            ended_after=given["ended_after"],
        )
        if not sys.stdout.isatty():
            _print_changes(events)
            return
        from rich.console import Console
        from rich.live import Live

        console = Console()

        def current() -> "Table":
            return table(dict(events.jobs), room=console.height - 2)

        with Live(get_renderable=current, console=console, refresh_per_second=4):
            for _ in events:
                pass


def _print_changes(events: Any) -> None:
    from scaimind.core.events import JobChanged, JobGone

    for event in events:
        if isinstance(event, JobChanged):
            click.echo("\t".join(_cells(event.job)))
        elif isinstance(event, JobGone):
            click.echo(f"{event.job_id}\tGONE\t{printable(event.reason)}")


def _cells(job: models.JobState) -> list[str]:
    progress = job.progress
    loss = "" if progress is None or progress.loss is None else f"{progress.loss:.4g}"
    step = str(progress.step) if progress is not None else ""
    return [printable(each) for each in (job.job_id, job.status, step, loss, job.name)]


def table(jobs: Mapping[str, models.JobState], *, room: int) -> "Table":
    """Return the jobs as a table of at most `room` rows: the newest, unfinished ones first."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, expand=True)
    for title in ("JOB", "NAME", "STATUS", "STEP", "LOSS", "AGE"):
        # Names and steps give way to what is short.
        short = title in ("STATUS", "LOSS", "AGE")
        made.add_column(title, no_wrap=True, overflow="ellipsis", min_width=6 if short else 1)
    made.add_column("MESSAGE", no_wrap=True, overflow="ellipsis", ratio=1)
    epoch = datetime.fromtimestamp(0, UTC)
    newest = sorted(jobs.values(), key=lambda job: job.created_at or epoch, reverse=True)
    shown = sorted(newest, key=lambda job: job.ended_at is not None)
    for job in shown[: max(room - 1, 1)]:
        job_id, status, step, loss, name = _cells(job)
        if job.progress is not None and job.progress.total_steps > 0:
            step = f"{step} of {job.progress.total_steps} ({_share(job.progress):.0%})"
        # Text, so that nothing in a name is taken for markup.
        made.add_row(
            Text(job_id),
            Text(name),
            Text(status, style=_COLOURS.get(status, "")),
            Text(step),
            Text(loss),
            Text(age(job.created_at)),
            Text(printable(job.message)),
        )
    if len(shown) > room - 1:
        made.add_row(Text(f"and {len(shown) - room + 1} more"))
    return made


def _share(progress: models.JobProgress) -> float:
    return min(progress.step / progress.total_steps, 1.0)
