"""Commands that show jobs, their checkpoints and their numbers."""

from itertools import islice
from typing import Any

import click

from scaimind.cli.jobs.statuses import STATUSES
from scaimind.cli.output import fields, output_option, show, show_data
from scaimind.cli.session import client, resolve
from scaimind.cli.times import age, moment

_JOB = click.argument("job_id", metavar="JOB")


@click.command("list")
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(STATUSES, case_sensitive=False),
    help="Only jobs in this state; may be given several times.",
)
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="Only jobs with this label.")
@click.option("--name", metavar="TEXT", help="Only jobs whose name contains it.")
@click.option("--user", metavar="USER", help="Only this user's jobs.")
@click.option(
    "--since", metavar="TIME", callback=moment, help="Only jobs submitted since: 1d, or a date."
)
@click.option(
    "--kind", type=click.Choice(["training", "evaluation"]), help="Only jobs of this kind."
)
@click.option("--parent", metavar="JOB", help="Only retries of this job.")
@click.option("--limit", default=50, show_default=True, help="Maximum number of jobs.")
@output_option
@click.pass_obj
def list_jobs(profile: str | None, /, limit: int, output: str | None, **given: Any) -> None:
    """List jobs, newest first.

    \b
    scaimind jobs list --status FAILED --since 1d
    scaimind jobs list --label team=nlp -o name
    """
    with client(profile) as made:
        found = made.jobs.list(
            status=given["status"] or None,
            label=given["label"] or None,
            name=given["name"],
            user_id=given["user"],
            created_after=given["since"],
            kind=given["kind"],
            parent_job_id=given["parent"],
            page_size=min(max(limit, 1), 100),
        )
        show(
            islice(found, max(limit, 0)),
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


@click.command()
@_JOB
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
    shown: dict[str, object] = {
        "Job": job.job_id,
        "Name": job.name,
        "Status": job.status,
        "Message": job.message,
        "Error": job.error_message,
        "Step": f"{progress.step} of {progress.total_steps}" if progress else "",
        "Loss": f"{progress.loss:.4g}" if progress and progress.loss is not None else "",
        "Submitted": job.created_at,
        "Started": job.started_at,
        "Ended": job.ended_at,
        "Nodes": ", ".join(job.node_ids),
        "Output": job.output_path,
        "Retries": job.parent_job_id,
    }
    if output == "wide":
        shown |= {
            "User": job.user_id,
            "Labels": ", ".join(f"{name}={value}" for name, value in job.labels.items()),
            "Runs": job.run_count,
            "Exit code": job.exit_code,
            "Checkpoints": job.checkpoint_count,
        }
    fields(shown)


@click.command()
@_JOB
@output_option
@click.pass_obj
def checkpoints(profile: str | None, job_id: str, output: str | None) -> None:
    """List a job's checkpoints, newest first.

    \b
    scaimind jobs checkpoints JOB
    """
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


@click.command()
@_JOB
@click.option("--points", default=1000, show_default=True, help="Maximum number of points.")
@click.option("--plot", is_flag=True, help="Draw one number over the steps.")
@click.option("--key", default="loss", show_default=True, help="The number that is drawn.")
@output_option
@click.pass_obj
def metrics(
    profile: str | None, job_id: str, points: int, plot: bool, key: str, output: str | None
) -> None:
    """Print a job's numbers, one step a line, or draw them.

    \b
    scaimind jobs metrics JOB --plot
    scaimind jobs metrics JOB --plot --key learning_rate
    """
    with client(profile) as made:
        found = made.jobs.metrics(resolve(made, job_id), max_points=points)
    if plot:
        from scaimind.cli.jobs.plot import draw

        draw(key, [(each.step, _number(each, key)) for each in found.points])
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
        wide=[
            ("EPOCH", lambda each: each.epoch),
            ("GRAD NORM", lambda each: each.grad_norm),
            ("SAMPLES/S", lambda each: each.samples_per_second),
            ("TOKENS/S", lambda each: each.tokens_per_second),
        ],
        name=lambda each: str(each.step),
        data=found.raw,
    )


def _number(point: Any, key: str) -> float | None:
    """Return a number of a snapshot, wherever it is in it."""
    for numbers in (point.raw, point.eval_metrics, point.extra):
        value = numbers.get(key)
        if isinstance(value, int | float):
            return float(value)
    return None
