"""Commands for the cluster: its nodes, and the jobs that wait."""

import click

from scaimind.cli.output import fields, output_option, show, show_data
from scaimind.cli.session import client
from scaimind.cli.times import age


@click.group()
def nodes() -> None:
    """List, get, drain and enable nodes."""


@nodes.command("list")
@output_option
@click.pass_obj
def list_nodes(profile: str | None, output: str | None) -> None:
    """List the cluster's nodes.

    \b
    scaimind nodes list -o wide
    """
    with client(profile) as made:
        show(
            made.nodes.list(),
            output,
            [
                ("NODE", lambda node: node.node_id),
                ("STATUS", lambda node: node.status),
                ("GPUS", lambda node: f"{node.allocated_gpus}/{node.total_gpus}"),
                ("TYPE", lambda node: node.gpu_type),
                ("CPUS", lambda node: f"{node.allocated_cpus}/{node.total_cpus}"),
                ("JOBS", lambda node: node.running_jobs),
            ],
            wide=[("HOST", lambda node: node.hostname), ("DRAIN", lambda node: node.drain_reason)],
            name=lambda node: str(node.node_id),
        )


@nodes.command()
@click.argument("node_id", metavar="NODE")
@output_option
@click.pass_obj
def get(profile: str | None, node_id: str, output: str | None) -> None:
    """Show one node.

    \b
    scaimind nodes get NODE
    """
    with client(profile) as made:
        node = made.nodes.get(node_id)
    if output in ("json", "yaml"):
        show_data(node.raw, output)
    elif output == "name":
        click.echo(node.node_id)
    else:
        fields({name.replace("_", " ").capitalize(): value for name, value in node.raw.items()})


@nodes.command()
@click.argument("node_id", metavar="NODE")
@click.option("--reason", default="", help="Shown with the node.")
@click.option("--force", is_flag=True, help="Abort the jobs that run there.")
@click.pass_obj
def drain(profile: str | None, node_id: str, reason: str, force: bool) -> None:
    """Schedule no new jobs onto a node.

    \b
    scaimind nodes drain NODE --reason "a new disk"
    """
    with client(profile) as made:
        node = made.nodes.drain(node_id, force=force, reason=reason)
    click.echo(f"{node.node_id}\t{node.status}")


@nodes.command()
@click.argument("node_id", metavar="NODE")
@click.pass_obj
def enable(profile: str | None, node_id: str) -> None:
    """Take a drained node back into service.

    \b
    scaimind nodes enable NODE
    """
    with client(profile) as made:
        node = made.nodes.enable(node_id)
    click.echo(f"{node.node_id}\t{node.status}")


@click.command()
@output_option
@click.pass_obj
def queue(profile: str | None, output: str | None) -> None:
    """Show the jobs that wait, by priority, then age, and why each does.

    \b
    scaimind queue
    scaimind queue -o wide
    """
    with client(profile) as made:
        page = made.queue(page_size=100)
        waiting, data = list(page.queued_jobs), dict(page.raw)
        while page.next_page_token:
            page = made.queue(page_size=100, page_token=page.next_page_token)
            waiting += page.queued_jobs
            data["queued_jobs"] = data.get("queued_jobs", []) + page.raw.get("queued_jobs", [])
    data.pop("next_page_token", None)
    show(
        waiting,
        output,
        [
            ("JOB", lambda job: job.job_id),
            ("NAME", lambda job: job.name),
            ("POSITION", lambda job: job.position),
            ("PRIORITY", lambda job: job.priority),
            ("STARTS IN", lambda job: f"{job.estimated_wait_seconds}s"),
            ("AGE", lambda job: age(job.queued_at)),
            ("REASON", lambda job: "" if job.reason == "UNSPECIFIED" else job.reason),
        ],
        wide=[
            ("GPUS", lambda job: job.gpu_count),
            ("TYPE", lambda job: job.gpu_type),
            ("WHY", lambda job: job.message),
        ],
        name=lambda job: str(job.job_id),
        data=data,
    )
