"""Commands for the cluster: its nodes, and the jobs that wait."""

import click

from scaimind.cli.output import output_option, show, show_data
from scaimind.cli.session import client
from scaimind.cli.times import age


@click.group()
def nodes() -> None:
    """List, get, drain and enable nodes."""


@nodes.command("list")
@output_option
@click.pass_obj
def list_nodes(profile: str | None, output: str | None) -> None:
    """List the cluster's nodes."""
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
@click.argument("node_id")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="yaml")
@click.pass_obj
def get(profile: str | None, node_id: str, output: str) -> None:
    """Show one node."""
    with client(profile) as made:
        show_data(made.nodes.get(node_id).raw, output)


@nodes.command()
@click.argument("node_id")
@click.option("--reason", default="", help="Shown with the node.")
@click.option("--force", is_flag=True, help="Abort the jobs that run there.")
@click.pass_obj
def drain(profile: str | None, node_id: str, reason: str, force: bool) -> None:
    """Schedule no new jobs onto a node."""
    with client(profile) as made:
        node = made.nodes.drain(node_id, force=force, reason=reason)
    click.echo(f"{node.node_id}\t{node.status}")


@nodes.command()
@click.argument("node_id")
@click.pass_obj
def enable(profile: str | None, node_id: str) -> None:
    """Take a drained node back into service."""
    with client(profile) as made:
        node = made.nodes.enable(node_id)
    click.echo(f"{node.node_id}\t{node.status}")


@click.command()
@output_option
@click.pass_obj
def queue(profile: str | None, output: str | None) -> None:
    """Show the jobs that wait, in the order in which they are expected to start."""
    with client(profile) as made:
        show(
            made.queue().queued_jobs,
            output,
            [
                ("JOB", lambda job: job.job_id),
                ("NAME", lambda job: job.name),
                ("POSITION", lambda job: job.position),
                ("PRIORITY", lambda job: job.priority),
                ("STARTS IN", lambda job: f"{job.estimated_wait_seconds}s"),
                ("AGE", lambda job: age(job.queued_at)),
            ],
            name=lambda job: str(job.job_id),
        )
