"""Commands for data sources."""

import sys

import click

from scaimind.cli.main import REFUSED
from scaimind.cli.output import output_option, show
from scaimind.cli.session import client


@click.group()
def data() -> None:
    """Check data sources, look into the data cache."""


@data.command()
@click.argument("sources", nargs=-1, required=True, metavar="URI...")
@output_option
@click.pass_obj
def validate(profile: str | None, sources: tuple[str, ...], output: str | None) -> None:
    """Reach and parse data sources without submitting anything.

    \b
    scaimind data validate scaidrive://local/corpus.jsonl
    """
    with client(profile) as made:
        found = made.data.validate(*({"path": each} for each in sources))
    show(
        found.validations,
        output,
        [
            ("SOURCE", lambda each: each.path),
            ("RECORDS", lambda each: each.record_count),
            ("BYTES", lambda each: each.size_bytes),
            ("FORMAT", lambda each: each.format),
            ("PROBLEM", lambda each: each.error_message),
        ],
        name=lambda each: str(each.path),
        data=found.raw,
    )
    sys.exit(0 if found.valid else REFUSED)


@data.command()
@output_option
@click.pass_obj
def cache(profile: str | None, output: str | None) -> None:
    """Show what the data cache holds.

    \b
    scaimind data cache
    """
    with client(profile) as made:
        found = made.data.cache()
    show(
        found.datasets,
        output,
        [
            ("SOURCE", lambda each: each.path),
            ("BYTES", lambda each: each.size_bytes),
            ("JOBS", lambda each: each.reference_count),
            ("USED", lambda each: each.last_accessed),
        ],
        wide=[("CACHED", lambda each: each.cached_at)],
        name=lambda each: str(each.path),
        data=found.raw,
    )
