"""A request's body as a YAML or JSON file, and where its fields stand in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from scaimind.cli.main import REFUSED, CommandError, say
from scaimind.cli.output import printable
from scaimind.errors import InvalidRequest

#: Bytes of a file.
MAX_FILE: Final = 1024 * 1024
#: Fields whose lines are known.
_MAX_LINES: Final = 10_000


@dataclass(slots=True)
class Document:
    """The body of a request."""

    body: dict[str, Any]
    path: str = ""
    #: Lines, from 1, by a field's path: `training_config.base_model`.
    lines: dict[str, int] = field(default_factory=dict)

    def note_lines(self, node: Any, at: str = "") -> None:
        """Note where a node of YAML and all in it begin."""
        if node is None or len(self.lines) > _MAX_LINES:
            return
        if at:
            self.lines.setdefault(at, node.start_mark.line + 1)
        if node.id == "mapping":
            for key, item in node.value:
                where = f"{at}.{key.value}" if at else str(key.value)
                self.lines.setdefault(where, key.start_mark.line + 1)
                self.note_lines(item, where)
        elif node.id == "sequence":
            for number, item in enumerate(node.value):
                self.note_lines(item, f"{at}[{number}]")

    def place(self, name: str) -> str:
        """Return where a field stands: `job.yaml:14: ` if it is in the file."""
        where = name
        while where:
            if where in self.lines:
                return f"{self.path}:{self.lines[where]}: "
            where = where.rpartition(".")[0] if "." in where else ""
        return f"{self.path}: " if self.path else ""


def read_document(path: Path, *, of: str) -> Document:
    """Read a file that has the fields `of` something. Raises CommandError, with the line."""
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise CommandError(f"{path} is over {MAX_FILE} bytes.")
        node = yaml.compose(text.decode(), Loader=yaml.SafeLoader)
        value = yaml.safe_load(text.decode())
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{path}:{mark.line + 1}" if mark else str(path)
        raise CommandError(f"{at}: no YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise CommandError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise CommandError(f"{path} must hold the fields of {of}.")
    found = Document({str(name): item for name, item in value.items()}, str(path))
    found.note_lines(node)
    return found


@contextmanager
def explain(document: Document) -> Iterator[None]:
    """Print the problems of a request that is refused, each with its line, and exit."""
    try:
        yield
    except InvalidRequest as error:
        if not error.details:
            raise
        for problem in error.details:
            text = f"{document.place(problem.field)}{problem.field}: {problem.message}"
            say(printable(text))
        raise click.exceptions.Exit(REFUSED) from error
