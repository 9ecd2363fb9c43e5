"""Commands for evaluations."""

from itertools import islice
from pathlib import Path
from typing import Any

import click

from scaimind.cli.output import fields, output_option, printable, show, show_data
from scaimind.cli.session import client
from scaimind.cli.times import age


@click.group()
def evals() -> None:
    """Submit, get and list evaluations."""


@evals.command()
@click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The evaluation as YAML or JSON.",
)
@output_option
@click.pass_obj
def submit(profile: str | None, path: Path, output: str | None) -> None:
    """Submit an evaluation.

    \b
    scaimind evals submit -f evaluation.yaml
    """
    from scaimind.cli.documents import explain, read_document

    document = read_document(path, of="an evaluation")
    with client(profile) as made, explain(document):
        _show(made.evaluations.submit(document.body), output)


@evals.command()
@click.argument("evaluation_id", metavar="EVALUATION")
@output_option
@click.pass_obj
def get(profile: str | None, evaluation_id: str, output: str | None) -> None:
    """Show an evaluation and its results.

    \b
    scaimind evals get EVALUATION -o json
    """
    with client(profile) as made:
        _show(made.evaluations.get(evaluation_id), output)


@evals.command("list")
@click.option("--limit", default=50, show_default=True, help="Maximum number of evaluations.")
@output_option
@click.pass_obj
def list_evaluations(profile: str | None, limit: int, output: str | None) -> None:
    """List evaluations, newest first.

    \b
    scaimind evals list
    """
    with client(profile) as made:
        show(
            islice(made.evaluations.list(page_size=min(max(limit, 1), 100)), max(limit, 0)),
            output,
            [
                ("EVALUATION", lambda job: job.job_id),
                ("NAME", lambda job: job.name),
                ("STATUS", lambda job: job.status),
                ("AGE", lambda job: age(job.created_at)),
            ],
            wide=[("MESSAGE", lambda job: job.error_message or job.message)],
            name=lambda job: str(job.job_id),
        )


def _show(found: Any, output: str | None) -> None:
    """Show an evaluation: its benchmarks one a line."""
    if output in ("json", "yaml"):
        show_data(found.raw, output)
    elif output == "name":
        click.echo(found.evaluation_id)
    else:
        fields(
            {
                "Evaluation": found.evaluation_id,
                "Status": found.status,
                "Job": found.job_id,
                "Model": found.model_uri,
                "Error": found.error_message,
            }
        )
        for each in found.results:
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in each.scores.items())
            click.echo(printable(f"{each.name}  {numbers}  {each.error_message}".rstrip()))
