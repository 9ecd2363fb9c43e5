"""The models that a job of the trainers names, made readable for it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from app.coordinator.data.drive import Drive
from app.coordinator.evaluations.model_kinds import needs_trainers
from app.coordinator.execution.inputs import access_of
from app.coordinator.jobs.model import JobRecord
from app.coordinator.trainers.hub import Hub
from app.coordinator.trainers.models import (
    ADAPTER,
    MAX_ADAPTER,
    adapter_base,
    base_in,
    check_chain,
    is_url,
)

_TASK_ADVICE: Final = (
    "Put a task's YAML file and its data into a folder on the drive and name that"
    " (scaidrive://<tenant>/<path>)"
)


class Models:
    """Blocks: call it in a thread."""

    def __init__(self, *, drive: Drive, hub: Hub) -> None:
        self._drive = drive
        self._hub = hub

    def add_paths(
        self, job: JobRecord, config: dict[str, Any], fetch: Callable[[str], str]
    ) -> None:
        """Add to a job's configuration where each model and tokenizer of its can be read.

        `fetch` makes a URL readable. What a hub has to be asked for by the job itself has no
        path. `shared_paths` are the folders of the machine's cache among them. Raises BadUrl,
        Abandoned, OSError.
        """
        shared: list[str] = []

        def locate(name: str, revision: str = "") -> str:
            variables = job.submission.training_config.environment
            return self._located(name, revision, variables, fetch, shared)

        training = config["training_config"]
        base, preprocess = training["base_model"], config["data_config"]["preprocess"]
        if path := base.get("local_path") or locate(base["model_id"], base["revision"]):
            base["local_path"] = path
            base["adapter_base_local_paths"] = self._bases(job, base["model_id"], path, locate)
        for named in (base, preprocess):
            if named["tokenizer_id"]:
                named["tokenizer_local_path"] = locate(named["tokenizer_id"])
        training["hyperparameter_local_paths"] = {
            name: fetch(value)
            for name, value in training["hyperparameters"].items()
            if is_url(value) and not value.startswith("/")
        }
        config["shared_paths"] = sorted(set(shared))

    def add_evaluated(
        self, job: JobRecord, config: dict[str, Any], fetch: Callable[[str], str]
    ) -> None:
        """Add to an evaluation's configuration whether its model is one of transformers, and
        where what an adapter is on can be read. Raises BadUrl, also where tasks of
        lm-evaluation-harness bring their data from a hub that cannot be reached; Abandoned,
        OSError."""
        assert job.evaluation is not None
        access, url = access_of(job), job.evaluation.model_uri
        config["transformers"] = needs_trainers(self._drive, access, url)
        if not config["transformers"]:
            return
        for task in (each["dataset"] for each in config["benchmarks"] if not each["local_path"]):
            self._hub.require(f"the data of the task {task}", advice=_TASK_ADVICE)
        shared: list[str] = []

        def locate(name: str) -> str:
            return self._located(name, "", {}, fetch, shared)

        config["base_paths"] = self._bases(job, url, config["model_path"], locate)
        config["shared_paths"] = shared

    def _located(
        self,
        name: str,
        revision: str,
        environment: Mapping[str, str],
        fetch: Callable[[str], str],
        shared: list[str],
    ) -> str:
        """Return where a model can be read; empty if the job has to fetch it from a hub.

        What is in the machine's cache is added to `shared`. Raises BadUrl, Abandoned, OSError.
        """
        if is_url(name):
            return fetch(name)
        found = self._hub.find(name, revision=revision, environment=environment)
        if found is None:
            return ""
        shared.append(str(found.folder))
        return str(found.path)

    def _bases(
        self, job: JobRecord, model_id: str, path: str, locate: Callable[[str], str]
    ) -> list[str]:
        """Return where the models are that a model is an adapter on, the nearest first.

        A base that the job has to fetch from a hub itself ends them. Raises BadUrl, Abandoned,
        OSError.
        """
        chain, paths = [model_id], []
        while base := self._adapted(job, chain[-1], path):
            check_chain(chain, base)
            if not (path := locate(base)):
                break
            chain.append(base)
            paths.append(path)
        return paths

    def _adapted(self, job: JobRecord, model_id: str, path: str) -> str:
        """Return the base of the adapter that a model is; empty if it is none."""
        if is_url(model_id):
            return adapter_base(self._drive, access_of(job), model_id)
        try:
            with open(Path(path, ADAPTER), "rb") as file:
                return base_in(file.read(MAX_ADAPTER + 1), f"{ADAPTER} in {model_id}")
        except FileNotFoundError:
            return ""
