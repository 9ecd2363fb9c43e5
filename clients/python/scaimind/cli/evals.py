"""Commands for evaluations."""

from pathlib import Path

import click

from scaimind.cli.output import output_option, show, show_data
from scaimind.cli.session import client
from scaimind.cli.times import age


@click.group()
def evals() -> None:
    """Submit, get and list evaluations."""


@evals.command()
@click.option("-f", "--file", "path", required=True, type=click.Path(exists=True, path_type=Path))
@click.pass_obj
def submit(profile: str | None, path: Path) -> None:
    """Submit an evaluation: the file is its body, as YAML or JSON."""
    import yaml

    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is no YAML: {error}") from error
    if not isinstance(body, dict):
        raise click.UsageError(f"{path} must hold the fields of an evaluation.")
    with client(profile) as made:
        found = made.evaluations.submit(body)
    click.echo(f"{found.evaluation_id}\t{found.status}")


@evals.command()
@click.argument("evaluation_id")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="yaml")
@click.pass_obj
def get(profile: str | None, evaluation_id: str, output: str) -> None:
    """Show an evaluation and its results."""
    with client(profile) as made:
        show_data(made.evaluations.get(evaluation_id).raw, output)


@evals.command("list")
@output_option
@click.pass_obj
def list_evaluations(profile: str | None, output: str | None) -> None:
    """List evaluations, newest first."""
    with client(profile) as made:
        show(
            made.evaluations.list(page_size=100),
            output,
            [
                ("EVALUATION", lambda job: job.job_id),
                ("NAME", lambda job: job.name),
                ("STATUS", lambda job: job.status),
                ("AGE", lambda job: age(job.created_at)),
            ],
            name=lambda job: str(job.job_id),
        )
