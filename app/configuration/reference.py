"""The settings as text: the reference that `docs/configuration.md` holds."""

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

from app.configuration.section import KiB, MiB, Section

_INTRODUCTION = """\
# Configuration of the gateway

Settings are environment variables, read once at the start. Times are seconds and sizes are bytes, \
unless a line says otherwise. A value that cannot be used stops the start with a line that names \
the variable.

This page is what `python -m app settings` prints.
"""


def as_markdown(sections: Iterable[type[Section]]) -> str:
    """Return every setting of the gateway as Markdown, one table a section."""
    tables = (line for section in sections for line in _section(section))
    return "\n".join((_INTRODUCTION, *tables))


def _section(section: type[Section]) -> Iterator[str]:
    yield f"## {(section.__doc__ or '').strip().splitlines()[0].rstrip('.')}"
    yield ""
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for setting in fields(section):
        yield f"| `{section.variable(setting.name)}` | {_default(setting)} | {_meaning(setting)} |"
    yield ""


def _default(setting: "Field[Any]") -> str:
    if setting.default is MISSING:
        return "*required*"
    if isinstance(setting.default, int) and setting.name.endswith(("bytes", "bytes_total")):
        for unit, name in ((MiB, "MiB"), (KiB, "KiB")):
            if setting.default % unit == 0:
                return f"`{setting.default}` ({setting.default // unit} {name})"
    return "none" if setting.default in ("", ()) else f"`{setting.default}`"


def _meaning(setting: "Field[Any]") -> str:
    about = setting.metadata
    text: str = about["text"]
    low, high = about.get("at_least"), about.get("at_most")
    if about.get("one_of"):
        text += f" One of {', '.join(f'`{each}`' for each in about['one_of'])}."
    elif low is not None and high is not None:
        text += f" From {low} to {high}."
    elif low is not None:
        text += f" At least {low}."
    elif high is not None:
        text += f" At most {high}."
    if about.get("secret"):
        text += " Can be read from a file instead, which the variable with `_FILE` behind it names."
    return text
