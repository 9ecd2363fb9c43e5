"""A submission, put together of a file, another job and flags."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import click

from scaimind.cli.documents import Document, read_document
from scaimind.cli.jobs.uploads import Uploads

_FRAMEWORK: Final = "training_config.framework"
_CONFIG: Final = f"{_FRAMEWORK}.config"
#: What is run in a folder where nothing else is named, the first that is there.
_SCRIPTS: Final = ("train.py", "main.py")
#: What of a job can be submitted again.
_AGAIN: Final = (
    "name", "training_config", "data_config", "resource_config", "output_config",
    "scheduling_config", "labels",
)  # fmt: skip


class Submission(Document):
    """The body of `POST /jobs`, and where its fields stand in the file."""

    @classmethod
    def build(
        cls,
        *,
        base: Mapping[str, Any] | None,
        path: str | None,
        program: str | None,
        script: str | None,
        requirements: str | None,
        model: str | None,
        training_type: str | None,
        arguments: Sequence[str] | None,
        name: str | None,
        sources: Sequence[str],
        destination: str | None,
        hyperparameters: Sequence[str],
        environment: Sequence[str],
        labels: Sequence[str],
        gpus: int | None,
        sets: Sequence[str],
        uploads: Uploads,
    ) -> "Submission":
        """Return what the flags say; they win over the file, and that over another job.

        What has to be uploaded is added to `uploads`, which sets its fields once
        it is. Raises UsageError where something cannot be read, or nothing is given.
        """
        if not (program or path or base or model):
            raise click.UsageError(
                "Name a script, a folder, a model (--model), a file (-f) or a job (--like)."
            )
        made = cls({each: deepcopy(base[each]) for each in _AGAIN if each in base} if base else {})
        if path:
            read = read_document(Path(path), of="a submission")
            made.body |= read.body
            made.path, made.lines = read.path, read.lines
            made._upload_local(Path(path).parent, uploads)
        if program:
            made._program(program, script, uploads)
        if model:
            made._model(model)
        if training_type:
            made._set("training_config.training_type", training_type.upper())
        if requirements:
            made._set(f"{_CONFIG}.requirements", requirements)
        if arguments is not None:
            made._set(f"{_CONFIG}.arguments", json.dumps(arguments))
        if name:
            made._set("name", name)
        if sources:
            made._set("data_config.sources", [{"path": each} for each in sources])
            for source in made.body["data_config"]["sources"]:
                uploads.add(source, "path", Path())
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

    def _program(self, program: str, script: str | None, uploads: Uploads) -> None:
        """Have a script or a folder run."""
        folder = "://" not in program and Path(program).is_dir()
        self._set(f"{_FRAMEWORK}.type", "CUSTOM")
        if folder or script:
            self._set(f"{_CONFIG}.working_dir", program)
            self._set(f"{_FRAMEWORK}.custom_script_path", script or _script_in(Path(program)))
            config = self.body["training_config"]["framework"]["config"]
            uploads.add(config, "working_dir", Path(), packed=True)
        else:
            self._set(f"{_FRAMEWORK}.custom_script_path", program)
            framework = self.body["training_config"]["framework"]
            # Of the job that this one is like.
            framework.get("config", {}).pop("working_dir", None)
            uploads.add(framework, "custom_script_path", Path())
        self._default("training_config.training_type", "FULL_FINETUNE")
        self._default("training_config.base_model.model_id", "none")
        self._default("data_config", {"sources": []})
        self._default("resource_config", {})
        label = (Path(program).resolve() if folder else Path(program.rstrip("/"))).name
        self._default("name", label)

    def _model(self, model: str) -> None:
        """Have a model trained; without a script, by the coordinator's own trainers."""
        self._set("training_config.base_model.model_id", model)
        self._default(f"{_FRAMEWORK}.type", "HF_TRAINER")
        self._default("training_config.training_type", "LORA")
        self._default("data_config", {"sources": []})
        self._default("resource_config", {})
        self._default("name", model.rstrip("/").rpartition("/")[2])

    def _upload_local(self, beside: Path, uploads: Uploads) -> None:
        """Have what the file names with ./ or ../ uploaded."""
        framework = _at(self.body, "training_config", "framework")
        places = [(framework, "custom_script_path"), (_at(framework, "config"), "working_dir")]
        sources = _at(self.body, "data_config").get("sources")
        places += [(each, "path") for each in sources or () if isinstance(each, dict)]
        for holder, key in places:
            value = holder.get(key)
            if isinstance(value, str) and value.startswith(("./", "../")):
                uploads.add(holder, key, beside, packed=key == "working_dir")

    def _set(self, where: str, value: Any) -> None:
        self._set_at(tuple(where.split(".")), value)

    def _set_at(self, where: Sequence[str], value: Any) -> None:
        at: Any = self.body
        for number, name in enumerate(where):
            if isinstance(at, list):
                # A number counts from 0, as in the API's own messages.
                if not name.isdecimal() or len(name) > 6 or int(name) >= len(at):
                    raise click.UsageError(
                        f"{'.'.join(where)}: {'.'.join(where[:number])} has {len(at)} entries; name"
                        " one by its number, the first by 0."
                    )
                key: Any = int(name)
            elif isinstance(at, dict):
                key = name
            else:
                raise click.UsageError(f"{'.'.join(where)}: {where[number - 1]} has no fields.")
            if number == len(where) - 1:
                at[key] = value
            elif isinstance(at, dict):
                at = at.setdefault(key, {})
            else:
                at = at[key]

    def _default(self, where: str, value: Any) -> None:
        at: Any = self.body
        for name in where.split("."):
            if not isinstance(at, dict) or name not in at:
                self._set(where, value)
                return
            at = at[name]


def _at(value: Any, *names: str) -> dict[str, Any]:
    """Return an object in another; an empty one where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _script_in(folder: Path) -> str:
    for name in _SCRIPTS:
        if (folder / name).is_file():
            return name
    raise click.UsageError(f"{folder} has no {' or '.join(_SCRIPTS)}: name the script (--script).")


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
