"""Commands that follow jobs: their logs, and their ends."""

import sys
from typing import Any

import click

from scaimind.cli.jobs.statuses import exit_status
from scaimind.cli.main import INTERRUPTED, TIMED_OUT, say
from scaimind.cli.session import client, resolve
from scaimind.cli.times import duration, moment

_MOST = 1_000_000


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option(
    "--tail", type=click.IntRange(0, _MOST), help="Begin with so many newest lines; else with all."
)
@click.option("--since", metavar="TIME", callback=moment, help="Only lines since: 10m, or a date.")
@click.option("--until", metavar="TIME", callback=moment, help="Only lines before.")
@click.option(
    "--level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="Only lines of this level and above.",
)
@click.option("--rank", type=click.IntRange(0), multiple=True, help="Only lines of this process.")
@click.option("--source", multiple=True, metavar="NAME", help="For example stdout or stderr.")
@click.option("--contains", metavar="TEXT", help="Only lines with this text, whatever its case.")
@click.option("--matches", metavar="PATTERN", help="Only lines that this RE2 pattern matches.")
@click.option("--after", metavar="CURSOR", help="Go on behind this place, from an earlier session.")
@click.option("--json", "as_json", is_flag=True, help="Print each entry as a JSON object.")
@click.pass_obj
def logs(
    profile: str | None,
    /,
    job_id: str,
    follow: bool,
    tail: int | None,
    after: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Print a job's log.

    With -f it is followed through restarts and broken connections; each line is
    printed once, and the exit status is the job's.

    \b
    scaimind jobs logs -f JOB
    scaimind jobs logs --tail 100 --level WARNING JOB
    scaimind jobs logs JOB --since 1h --contains "out of memory"
    """
    from scaimind.cli.jobs.following import follow as follow_log

    with client(profile) as made:
        status = follow_log(
            made,
            resolve(made, job_id),
            wait=follow,
            tail=tail,
            after=after,
            as_json=as_json,
            filters={name: value for name, value in filters.items() if value not in (None, ())},
        )
    sys.exit(status)


@click.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB...")
@click.option("--timeout", metavar="TIME", callback=duration, help="For example 90s, 10m or 2h.")
@click.pass_obj
def wait(profile: str | None, job_ids: tuple[str, ...], timeout: float | None) -> None:
    """Wait until jobs have ended, either way.

    The exit status is 0 only if all of them are COMPLETED.

    \b
    scaimind jobs wait JOB --timeout 2h && echo done
    """
    from scaimind.core.wait import WaitTimeout

    def tell(job: Any) -> None:
        if job.status == "PAUSED":
            say(f"{job.job_id} is PAUSED; the wait goes on.")

    with client(profile) as made:
        wanted = [resolve(made, each) for each in job_ids]
        try:
            statuses = made.jobs.wait(*wanted, timeout=timeout, progress=tell)
        except WaitTimeout as error:
            say(str(error))
            sys.exit(TIMED_OUT)
        except KeyboardInterrupt:
            say("")
            say("Nobody waits any more; the jobs go on.")
            sys.exit(INTERRUPTED)
    for job_id, status in statuses.items():
        click.echo(f"{job_id}\t{status}")
    sys.exit(exit_status(statuses.values()))
