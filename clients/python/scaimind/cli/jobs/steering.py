"""Commands that change jobs."""

import sys
from typing import TYPE_CHECKING, Any

import click

from scaimind.cli.output import output_option, show
from scaimind.cli.session import client, resolve

if TYPE_CHECKING:
    from scaimind.client import Client

_JOBS = click.argument("job_ids", nargs=-1, required=True, metavar="JOB...")


@click.command()
@_JOBS
@click.option("--reason", default="", help="Shown with the job.")
@output_option
@click.pass_obj
def cancel(profile: str | None, job_ids: tuple[str, ...], reason: str, output: str | None) -> None:
    """End jobs.

    \b
    scaimind jobs cancel JOB --reason "had enough"
    """
    with client(profile) as made:
        _show([made.jobs.cancel(resolve(made, each), reason=reason) for each in job_ids], output)


@click.command()
@_JOBS
@click.option("--no-checkpoint", is_flag=True, help="Stop at once; the newest checkpoint counts.")
@click.option("--wait", is_flag=True, help="Return when they are paused, or have ended.")
@output_option
@click.pass_obj
def pause(
    profile: str | None,
    job_ids: tuple[str, ...],
    no_checkpoint: bool,
    wait: bool,
    output: str | None,
) -> None:
    """Stop running jobs; 'resume' goes on from the checkpoint.

    \b
    scaimind jobs pause JOB
    scaimind jobs pause JOB --wait && scaimind jobs resume JOB
    """
    save = not no_checkpoint
    with client(profile) as made:
        found = [made.jobs.pause(resolve(made, each), save_checkpoint=save) for each in job_ids]
        if wait:
            _until_paused(made, [each.job_id for each in found])
            found = [made.jobs.get(each.job_id) for each in found]
    _show(found, output)


def _until_paused(made: "Client", job_ids: list[str]) -> None:
    from scaimind.core.follow import ended

    events = made.events(job_id=job_ids)
    for _ in events:
        statuses = [job.status for job in events.jobs.values()]
        if events.synced and all(each == "PAUSED" or ended(each) for each in statuses):
            return


@click.command()
@_JOBS
@click.option("--checkpoint", default="", help="Instead of the newest.")
@output_option
@click.pass_obj
def resume(
    profile: str | None, job_ids: tuple[str, ...], checkpoint: str, output: str | None
) -> None:
    """Put paused jobs back to work.

    \b
    scaimind jobs resume JOB
    """
    with client(profile) as made:
        found = [
            made.jobs.resume(resolve(made, each), checkpoint_id=checkpoint) for each in job_ids
        ]
    _show(found, output)


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--checkpoint", default="", help="Start from this checkpoint of the job.")
@output_option
@click.pass_obj
def retry(profile: str | None, job_id: str, checkpoint: str, output: str | None) -> None:
    """Run a failed or preempted job again, as a new job.

    \b
    scaimind jobs retry JOB
    """
    with client(profile) as made:
        _show([made.jobs.retry(resolve(made, job_id), checkpoint_id=checkpoint)], output)


@click.command()
@_JOBS
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(profile: str | None, job_ids: tuple[str, ...], yes: bool) -> None:
    """Delete jobs that have ended: their logs, numbers, checkpoints and files.

    What they exported stays. On a terminal it asks first.

    \b
    scaimind jobs delete JOB
    scaimind jobs list --status FAILED -o name | xargs scaimind jobs delete
    """
    with client(profile) as made:
        found = [resolve(made, each) for each in job_ids]
        if not yes and sys.stdin.isatty():
            click.confirm(f"Delete {', '.join(found)}?", abort=True, err=True)
        for each in found:
            deleted = made.jobs.delete(each)
            click.echo(f"{deleted.job_id}\tdeleted\t{deleted.freed_bytes}")


def _show(jobs: list[Any], output: str | None) -> None:
    """Show what became of jobs."""
    columns = [
        ("JOB", lambda job: job.job_id),
        ("STATUS", lambda job: job.status),
        ("MESSAGE", lambda job: job.message),
    ]
    more = [("NAME", lambda job: job.name)]
    show(jobs, output, columns, wide=more, name=lambda job: str(job.job_id))
