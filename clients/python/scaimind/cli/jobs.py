"""Commands for training jobs."""

import signal
import sys
from datetime import UTC, datetime
from typing import Any

import click

from scaimind.cli.main import TIMED_OUT, say
from scaimind.cli.output import fields, output_option, show, show_data
from scaimind.cli.session import client, resolve
from scaimind.cli.statuses import exit_status

STATUSES = (
    "PENDING", "QUEUED", "SCHEDULING", "PREPARING", "TRAINING", "CHECKPOINTING", "PAUSED",
    "EVALUATING", "EXPORTING", "COMPLETED", "FAILED", "CANCELLED", "PREEMPTED",
)  # fmt: skip


@click.group()
def jobs() -> None:
    """Submit, follow and steer training jobs.

    A job is named by its id, by a unique beginning of it, or by '-', the newest.
    """


class TooLate(BaseException):
    """The time of a wait is over. No TimeoutError, which a connection takes for its own."""


@jobs.command("list")
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(STATUSES, case_sensitive=False),
    help="Only jobs in this state; may be given several times.",
)
@click.option("--limit", default=50, show_default=True, help="Maximum number of jobs.")
@output_option
@click.pass_obj
def list_jobs(profile: str | None, status: tuple[str, ...], limit: int, output: str | None) -> None:
    """List jobs, newest first.

    \b
    scaimind jobs list --status FAILED
    scaimind jobs list -o name
    """
    with client(profile) as made:
        found = made.jobs.list(status=status or None, page_size=min(max(limit, 1), 100))
        show(
            (job for _, job in zip(range(limit), found, strict=False)),
            output,
            [
                ("JOB", lambda job: job.job_id),
                ("NAME", lambda job: job.name),
                ("STATUS", lambda job: job.status),
                ("AGE", lambda job: age(job.created_at)),
                ("WHY", lambda job: job.error_message or job.message),
            ],
            wide=[("USER", lambda job: job.user_id), ("NODES", lambda job: ",".join(job.node_ids))],
            name=lambda job: str(job.job_id),
        )


@jobs.command()
@click.argument("job_id")
@output_option
@click.pass_obj
def get(profile: str | None, job_id: str, output: str | None) -> None:
    """Show one job.

    \b
    scaimind jobs get -
    scaimind jobs get JOB -o json
    """
    with client(profile) as made:
        job = made.jobs.get(resolve(made, job_id))
    if output in ("json", "yaml"):
        show_data(job.raw, output)
        return
    if output == "name":
        click.echo(job.job_id)
        return
    progress = job.progress
    fields(
        {
            "Job": job.job_id,
            "Name": job.name,
            "Status": job.status,
            "Message": job.message,
            "Error": job.error_message,
            "Step": f"{progress.step} of {progress.total_steps}" if progress else "",
            "Loss": progress.loss if progress else "",
            "Submitted": job.created_at,
            "Started": job.started_at,
            "Ended": job.ended_at,
            "Nodes": ", ".join(job.node_ids),
            "Output": job.output_path,
            "Retries": job.parent_job_id,
        }
    )


@jobs.command()
@click.argument("job_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--tail", type=click.IntRange(0, 1_000_000), help="Begin with so many newest lines.")
@click.option(
    "--level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="Only lines of this level and above.",
)
@click.option("--after", metavar="CURSOR", help="Go on behind this place, from an earlier session.")
@click.option("--json", "as_json", is_flag=True, help="Print each entry as a JSON object.")
@click.pass_obj
def logs(
    profile: str | None,
    job_id: str,
    follow: bool,
    tail: int | None,
    level: str | None,
    after: str | None,
    as_json: bool,
) -> None:
    """Print a job's log.

    With -f it is followed through restarts and broken connections; each line is
    printed once, and the exit status is the job's.

    \b
    scaimind jobs logs -f JOB
    scaimind jobs logs --tail 100 --level WARNING JOB
    """
    from scaimind.cli.following import follow as follow_log

    with client(profile) as made:
        status = follow_log(
            made,
            resolve(made, job_id),
            wait=follow,
            tail=tail if tail is not None else None if after or follow else 1_000_000,
            level=level.upper() if level else None,
            after=after,
            as_json=as_json,
        )
    sys.exit(status)


@jobs.command()
@click.argument("script", required=False)
@click.option("-f", "--file", "path", metavar="FILE", help="A submission as YAML or JSON.")
@click.option("--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Set any field of it.")
@click.option("--name", help="The job's name.")
@click.option("--data", "sources", multiple=True, metavar="URI", help="A data source.")
@click.option("--output", "destination", metavar="URI", help="Where artefacts go.")
@click.option("--hp", "hyperparameters", multiple=True, metavar="NAME=VALUE", help="As --set.")
@click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="Its environment.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs on each node.")
@click.option("--like", metavar="JOB", help="Begin with what another job was submitted with.")
@click.option("--print", "only_print", is_flag=True, help="Print the submission; submit nothing.")
@click.option("--follow", is_flag=True, help="Then print the log, until the job has ended.")
@click.pass_obj
def submit(profile: str | None, /, follow: bool, only_print: bool, **given: Any) -> None:
    """Submit a job: SCRIPT is a path in ScaiDrive, scaidrive://tenant/path.

    \b
    scaimind jobs submit scaidrive://local/train.py --data scaidrive://local/corpus.jsonl --follow
    scaimind jobs submit -f job.yaml --set training_config.hyperparameters.learning_rate=1e-4
    """
    from scaimind.cli.following import follow as follow_log
    from scaimind.cli.submission import Submission, explain

    with client(profile) as made:
        like = given.pop("like")
        base = made.jobs.get(resolve(made, like)).raw if like else None
        submission = Submission.build(base=base, **given)
        if only_print:
            show_data(submission.body, "yaml")
            return
        with explain(submission):
            answer = made.jobs.submit(submission.body)
        click.echo(f"{answer.job_id}\t{answer.status}")
        if sys.stderr.isatty() and not follow:
            say(f"  {answer.message}\n  scaimind jobs logs -f {answer.job_id}")
        if not follow:
            return
        status = follow_log(made, answer.job_id, wait=True, tail=1_000_000)
    sys.exit(status)


@jobs.command()
@click.argument("job_ids", nargs=-1, required=True)
@click.option("--timeout", metavar="TIME", help="For example 90s, 10m or 2h.")
@click.pass_obj
def wait(profile: str | None, job_ids: tuple[str, ...], timeout: str | None) -> None:
    """Wait until jobs have ended, either way.

    The exit status is 0 only if all of them are COMPLETED.

    \b
    scaimind jobs wait JOB --timeout 2h && deploy
    """
    limit = seconds(timeout) if timeout else None

    def too_late(_number: int, _frame: object) -> None:
        raise TooLate

    with client(profile) as made:
        wanted = [resolve(made, each) for each in job_ids]
        # A stream is silent for as long as nothing happens: only a signal is exact.
        before = signal.signal(signal.SIGALRM, too_late)
        if limit is not None:
            signal.setitimer(signal.ITIMER_REAL, max(limit, 0.001))
        try:
            statuses = made.jobs.wait(*wanted)
        except TooLate:
            say(f"Not all jobs have ended after {timeout}.")
            sys.exit(TIMED_OUT)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    for job_id, status in statuses.items():
        click.echo(f"{job_id}\t{status}")
    sys.exit(exit_status(statuses.values()))


@jobs.command()
@click.argument("job_id")
@click.option("--reason", default="", help="Shown with the job.")
@click.pass_obj
def cancel(profile: str | None, job_id: str, reason: str) -> None:
    """End a job."""
    with client(profile) as made:
        done(made.jobs.cancel(resolve(made, job_id), reason=reason))


@jobs.command()
@click.argument("job_id")
@click.option("--no-checkpoint", is_flag=True, help="Stop at once; the newest checkpoint counts.")
@click.pass_obj
def pause(profile: str | None, job_id: str, no_checkpoint: bool) -> None:
    """Stop a running job; 'resume' goes on from its checkpoint."""
    with client(profile) as made:
        done(made.jobs.pause(resolve(made, job_id), save_checkpoint=not no_checkpoint))


@jobs.command()
@click.argument("job_id")
@click.option("--checkpoint", default="", help="Instead of the newest.")
@click.pass_obj
def resume(profile: str | None, job_id: str, checkpoint: str) -> None:
    """Put a paused job back to work."""
    with client(profile) as made:
        done(made.jobs.resume(resolve(made, job_id), checkpoint_id=checkpoint))


@jobs.command()
@click.argument("job_id")
@click.option("--checkpoint", default="", help="Start from this checkpoint of the job.")
@click.pass_obj
def retry(profile: str | None, job_id: str, checkpoint: str) -> None:
    """Run a failed or preempted job again, as a new job."""
    with client(profile) as made:
        done(made.jobs.retry(resolve(made, job_id), checkpoint_id=checkpoint))


@jobs.command()
@click.argument("job_id")
@output_option
@click.pass_obj
def checkpoints(profile: str | None, job_id: str, output: str | None) -> None:
    """List a job's checkpoints, newest first."""
    with client(profile) as made:
        show(
            made.jobs.checkpoints(resolve(made, job_id)),
            output,
            [
                ("CHECKPOINT", lambda each: each.checkpoint_id),
                ("STEP", lambda each: each.step),
                ("SIZE", lambda each: each.size_bytes),
                ("AGE", lambda each: age(each.created_at)),
            ],
            wide=[("PATH", lambda each: each.path)],
            name=lambda each: str(each.checkpoint_id),
        )


@jobs.command()
@click.argument("job_id")
@click.option("--points", default=1000, show_default=True, help="Maximum number of points.")
@click.option("--plot", is_flag=True, help="Draw the loss in the terminal.")
@output_option
@click.pass_obj
def metrics(profile: str | None, job_id: str, points: int, plot: bool, output: str | None) -> None:
    """Print a job's numbers, one step a line."""
    with client(profile) as made:
        found = made.jobs.metrics(resolve(made, job_id), max_points=points)
    if plot:
        from scaimind.cli.plot import draw

        draw([(each.step, each.loss) for each in found.points if each.loss is not None])
        return
    if output in ("json", "yaml"):
        show_data(found.raw, output)
        return
    show(
        found.points,
        output,
        [
            ("STEP", lambda each: each.step),
            ("LOSS", lambda each: "" if each.loss is None else f"{each.loss:.6g}"),
            ("RATE", lambda each: each.learning_rate),
            ("TIME", lambda each: each.timestamp),
        ],
        name=lambda each: str(each.step),
    )


def done(job: Any) -> None:
    """Print what became of a job."""
    click.echo(f"{job.job_id}\t{job.status}")


def age(moment: datetime | None) -> str:
    """Return how long ago a moment was: `3h`."""
    if moment is None:
        return ""
    passed = max((datetime.now(UTC) - moment).total_seconds(), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if passed >= size:
            return f"{int(passed // size)}{unit}"
    return f"{int(passed)}s"


def seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `10m`, `2h` or `1d`. Raises UsageError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in "smhd" and text else (text, "s")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise click.UsageError(f"{text!r} is no time; one looks like 90s, 10m or 2h.")
    return value * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
