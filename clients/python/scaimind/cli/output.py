"""Objects for people on a terminal, and for programs in a pipe."""

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
Columns = Sequence[tuple[str, Callable[[Any], object]]]


def output_option(function: _F) -> _F:
    """Add `-o` to a command, as the argument `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["json", "yaml", "name", "wide"]),
        help="Instead of a table: the API's data, ids alone, or more columns.",
    )(function)


def show(
    items: Iterable[Any],
    output: str | None,
    columns: Columns,
    *,
    wide: Columns = (),
    name: Callable[[Any], str],
    data: Any = None,
) -> None:
    """Print a list: a table on a terminal, tab-separated fields without a header in a pipe.

    `data` is what the API sent, where the list is a part of it.
    """
    if output in ("json", "yaml"):
        show_data([as_json(item) for item in items] if data is None else data, output)
        return
    if output == "name":
        for item in items:
            click.echo(printable(name(item)))
        return
    shown = [*columns, *(wide if output == "wide" else ())]
    rows = ([printable(_cell(get(item))) for _, get in shown] for item in items)
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    table = [[title for title, _ in shown], *rows]
    widths = [max(map(width, column)) for column in zip(*table, strict=True)]
    limit = shutil.get_terminal_size().columns
    if len(table) == 1:
        click.echo("There are none.", err=True)
        return
    for row in table:
        cells = [cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)]
        line = "  ".join(cells).rstrip()
        click.echo(line if output == "wide" else cut(line, limit))


def _cell(value: object) -> str:
    """Return a value as it stands in a table; 0 is a value, and times are local on a terminal."""
    if isinstance(value, datetime):
        if sys.stdout.isatty():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return value.isoformat()
    return "" if value is None else str(value)


def show_data(data: Any, output: str) -> None:
    """Print parsed JSON as JSON or YAML."""
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def as_json(item: Any) -> Any:
    """Return what the API sent."""
    from scaimind.model import Model

    return item.raw if isinstance(item, Model) else item


def printable(text: str) -> str:
    """Return text of others without what would steer a terminal, on one line."""
    return "".join(
        character if unicodedata.category(character)[0] != "C" else " " for character in text
    )


#: What a terminal does something with, but tabs and colours (ECMA-48's SGR).
_STEERING = re.compile(r"\x1b\[[0-9;:]*m|[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def steers_nothing(text: str) -> str:
    """Return text of others without what would steer a terminal; tabs and colours stay."""
    kept = _STEERING.sub(lambda found: found[0] if len(found[0]) > 1 else "", text)
    return f"{kept}\x1b[0m" if "\x1b[" in kept else kept


def width(text: str) -> int:
    """Return how many columns text takes."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def cut(text: str, limit: int) -> str:
    """Return text that takes no more than so many columns."""
    if width(text) <= limit:
        return text
    kept = ""
    taken = 1
    for each in text:
        taken += width(each)
        if taken > limit:
            break
        kept += each
    return kept + "…"


def fields(pairs: Mapping[str, object]) -> None:
    """Print an object's fields, one a line; those without a value are left out."""
    shown = {
        name: printable(_cell(value)) for name, value in pairs.items() if value not in ("", None)
    }
    longest = max(map(len, shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name + ':':{longest + 1}}  {value}")
