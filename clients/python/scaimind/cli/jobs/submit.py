"""The command that submits a job."""

import sys
from typing import Any

import click

from scaimind.cli.main import say
from scaimind.cli.output import output_option, printable, show_data
from scaimind.cli.profiles import chosen
from scaimind.cli.session import client, resolve

_ARGUMENTS = "scaimind.arguments"


class WithArguments(click.Command):
    """A command whose words behind `--` are handed on as they are."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words behind the first `--` away from click, which would drop it."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[_ARGUMENTS] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return what stands in the line `Usage:`."""
        return [*super().collect_usage_pieces(ctx), "[-- ARGUMENT...]"]


@click.command(cls=WithArguments)
@click.argument("program", required=False, metavar="[SCRIPT|FOLDER]")
@click.option("-f", "--file", "path", metavar="FILE", help="A submission as YAML or JSON.")
@click.option("--like", metavar="JOB", help="Begin with what another job was submitted with.")
@click.option("--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Set any field of it.")
@click.option("--name", help="The job's name; by default the script's.")
@click.option("--script", metavar="FILE", help="What to run in FOLDER; train.py or main.py.")
@click.option("--requirements", metavar="FILE", help="What to install, a file in FOLDER.")
@click.option("--model", metavar="URI", help="The model to train; no script is needed then.")
@click.option("--type", "training_type", metavar="TYPE", help="SFT, LORA, DPO, ...; LORA.")
@click.option("--data", "sources", multiple=True, metavar="FILE|URI", help="A data source.")
@click.option("--output-path", "destination", metavar="URI", help="Where artefacts go.")
@click.option(
    "--hp", "hyperparameters", multiple=True, metavar="NAME=VALUE", help="A hyperparameter."
)
@click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="A variable.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs on each node.")
@click.option("--dry-run", is_flag=True, help="Upload and check everything; submit nothing.")
@click.option("--print", "only_print", is_flag=True, help="Print the submission; do nothing.")
@click.option("--follow", is_flag=True, help="Then follow the log until the job has ended.")
@click.option("-y", "--yes", is_flag=True, help="Upload however much it is, without asking.")
@output_option
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    like: str | None,
    dry_run: bool,
    only_print: bool,
    follow: bool,
    yes: bool,
    output: str | None,
    **given: Any,
) -> None:
    """Submit a job.

    A script, a folder and data of this machine are uploaded to the drive first,
    if they are not there yet: of a folder, what .gitignore and .scaimindignore
    let through. What has a scheme (scaidrive://...) stays where it is. In FILE, a
    path that begins with ./ is one of this machine, beside FILE.

    \b
    scaimind jobs submit train.py --data corpus.jsonl --hp steps=8000 --follow
    scaimind jobs submit . --requirements requirements.txt -- --lr 1e-4 --bf16
    scaimind jobs submit --model scaiatlas://TENANT/MODEL --type SFT --hp lr=2e-5 --print
    scaimind jobs submit -f job.yaml --set training_config.hyperparameters.lr=1e-4 --dry-run
    scaimind jobs submit --like JOB --hp lr=1e-5
    """
    from scaimind.cli.documents import explain
    from scaimind.cli.jobs.submission import Submission
    from scaimind.cli.jobs.uploads import Uploads

    with client(ctx.obj) as made:
        base = made.jobs.get(resolve(made, like)).raw if like else None
        uploads = Uploads()
        submission = Submission.build(
            base=base, arguments=ctx.meta.get(_ARGUMENTS), uploads=uploads, **given
        )
        if only_print:
            uploads.announce()
            show_data(submission.body, "yaml")
            return
        uploads.carry_out(made.files, yes=yes)
        if dry_run:
            with explain(submission):
                _show_check(made.jobs.check(submission.body), output)
            return
        with explain(submission):
            answer = made.jobs.submit(submission.body)
        if output in ("json", "yaml"):
            show_data(answer.raw, output)
        elif output == "name":
            click.echo(answer.job_id)
        else:
            name = submission.body.get("name", "")
            columns = (answer.job_id, str(name), answer.status, answer.message)
            gap = "  " if sys.stdout.isatty() else "\t"
            click.echo(gap.join(map(printable, columns)))
        if not follow:
            if sys.stderr.isatty() and output in (None, "wide"):
                say(f"  {chosen(ctx.obj).url}/console/jobs/{answer.job_id}")
                say(f"  scaimind jobs logs -f {answer.job_id}")
            return
        from scaimind.cli.jobs.following import follow as follow_log

        status = follow_log(made, answer.job_id, wait=True)
    sys.exit(status)


def _show_check(check: Any, output: str | None) -> None:
    """Show what would become of a submission."""
    if output in ("json", "yaml"):
        show_data(check.raw, output)
        return
    for warning in check.warnings:
        say(f"Warning: {printable(warning)}")
    starts = "would start now" if check.would_start else f"would wait: {check.waiting_for}"
    click.echo(f"The submission is valid; it {printable(starts)}.".replace("..", "."))
