"""A submission, put together of a file, another job and flags."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from scaimind.cli.main import REFUSED, say
from scaimind.errors import InvalidRequest

#: Bytes of a file with a submission.
MAX_FILE: Final = 1024 * 1024
#: What of a job can be submitted again.
_AGAIN: Final = (
    "name", "training_config", "data_config", "resource_config", "output_config",
    "scheduling_config", "labels",
)  # fmt: skip


@dataclass(slots=True)
class Submission:
    """The body of `POST /jobs`, and where its fields stand in the file."""

    body: dict[str, Any]
    path: str = ""
    #: Lines, from 1, by a field's path: `training_config.base_model`.
    lines: dict[str, int] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        *,
        base: Mapping[str, Any] | None,
        path: str | None,
        script: str | None,
        name: str | None,
        sources: Sequence[str],
        destination: str | None,
        hyperparameters: Sequence[str],
        environment: Sequence[str],
        labels: Sequence[str],
        gpus: int | None,
        sets: Sequence[str],
    ) -> "Submission":
        """Return what the flags say; later ones win over the file, and that over another job.

        Raises UsageError where something cannot be read, or nothing is given.
        """
        if not (script or path or base):
            raise click.UsageError("Name a script, a file (-f) or a job (--like).")
        made = cls({each: deepcopy(base[each]) for each in _AGAIN if each in base} if base else {})
        if path:
            made._read(Path(path))
        if script:
            made._set("training_config.framework.type", "CUSTOM")
            made._set("training_config.framework.custom_script_path", script)
            made._default("training_config.training_type", "FULL_FINETUNE")
            made._default("training_config.base_model.model_id", "none")
            made._default("resource_config", {})
            made._default("name", script.rpartition("/")[2])
        if name:
            made._set("name", name)
        if sources:
            made._set("data_config.sources", [{"path": each} for each in sources])
        if destination:
            made._set("output_config.path", destination)
        if gpus is not None:
            made._set("resource_config.gpu_count", gpus)
        for option, where, pairs in (
            ("--hp", ("training_config", "hyperparameters"), hyperparameters),
            ("--env", ("training_config", "environment"), environment),
            ("--label", ("labels",), labels),
        ):
            for key, value in map(_pair(option), pairs):
                made._set_at((*where, key), value)
        for key, value in map(_pair("--set"), sets):
            made._set(key, _value(key, value))
        return made

    def _read(self, path: Path) -> None:
        import yaml

        try:
            with path.open("rb") as file:
                text = file.read(MAX_FILE + 1)
            if len(text) > MAX_FILE:
                raise click.UsageError(f"{path} is over {MAX_FILE} bytes.")
            node = yaml.compose(text.decode(), Loader=yaml.SafeLoader)
            value = yaml.safe_load(text.decode())
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{path} cannot be read: {error}") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise click.UsageError(f"{path} is no YAML: {error}") from error
        if not isinstance(value, dict):
            raise click.UsageError(f"{path} must hold the fields of a submission.")
        self.path = str(path)
        self._note_lines(node, "")
        for name, item in value.items():
            self.body[str(name)] = item

    def _note_lines(self, node: Any, at: str) -> None:
        if node is None or len(self.lines) > 10_000:
            return
        if at:
            self.lines.setdefault(at, node.start_mark.line + 1)
        if node.id == "mapping":
            for key, item in node.value:
                where = f"{at}.{key.value}" if at else str(key.value)
                self.lines.setdefault(where, key.start_mark.line + 1)
                self._note_lines(item, where)
        elif node.id == "sequence":
            for number, item in enumerate(node.value):
                self._note_lines(item, f"{at}[{number}]")

    def _set(self, where: str, value: Any) -> None:
        self._set_at(tuple(where.split(".")), value)

    def _set_at(self, where: Sequence[str], value: Any) -> None:
        at = self.body
        for name in where[:-1]:
            inner = at.setdefault(name, {})
            if not isinstance(inner, dict):
                raise click.UsageError(f"{'.'.join(where)}: {name} has no fields.")
            at = inner
        at[where[-1]] = value

    def _default(self, where: str, value: Any) -> None:
        at: Any = self.body
        for name in where.split("."):
            if not isinstance(at, dict) or name not in at:
                self._set(where, value)
                return
            at = at[name]

    def place(self, name: str) -> str:
        """Return where a field stands: `job.yaml:14: ` if it is in the file."""
        where = name
        while where:
            if where in self.lines:
                return f"{self.path}:{self.lines[where]}: "
            where = where.rpartition(".")[0] if "." in where else ""
        return f"{self.path}: " if self.path else ""


def _pair(option: str) -> Any:
    def split(text: str) -> tuple[str, str]:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise click.UsageError(f"{option} {text!r}: write NAME=VALUE.")
        return name, value

    return split


def _value(name: str, text: str) -> Any:
    """Return a value of `--set`: hyperparameters and the like are texts, others are YAML."""
    if name.startswith(("training_config.hyperparameters.", "training_config.environment.")):
        return text
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise click.UsageError(f"--set {name}: {text!r} is no value: {error}") from error


@contextmanager
def explain(submission: Submission) -> Iterator[None]:
    """Print the problems of a submission that is refused, each with its line, and exit."""
    try:
        yield
    except InvalidRequest as error:
        if not error.details:
            raise
        for problem in error.details:
            say(f"{submission.place(problem.field)}{problem.field}: {problem.message}")
        raise click.exceptions.Exit(REFUSED) from error
