"""The models that a job of the trainers names, made readable for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    is_url,
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
            if is_url(name):
                return fetch(name)
            variables = job.submission.training_config.environment
            found = self._hub.find(name, revision=revision, environment=variables)
            if found is None:
                return ""
            shared.append(str(found.folder))
            return str(found.path)

        training = config["training_config"]
        base, preprocess = training["base_model"], config["data_config"]["preprocess"]
        if path := base.get("local_path") or locate(base["model_id"], base["revision"]):
            base["local_path"] = path
            if adapted := self._adapted(job, base["model_id"], path):
                base["adapter_base_local_path"] = locate(adapted)
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
        where the base of an adapter can be read. Raises BadUrl, Abandoned, OSError."""
        assert job.evaluation is not None
        access, url = access_of(job), job.evaluation.model_uri
        config["transformers"] = needs_trainers(self._drive, access, url)
        if not config["transformers"] or not (base := adapter_base(self._drive, access, url)):
            return
        if is_url(base):
            config["base_path"] = fetch(base)
        elif (found := self._hub.find(base, revision="", environment={})) is not None:
            config["base_path"] = str(found.path)
            config["shared_paths"] = [str(found.folder)]

    def _adapted(self, job: JobRecord, model_id: str, path: str) -> str:
        """Return the base of the adapter that a model is; empty if it is none."""
        if is_url(model_id):
            return adapter_base(self._drive, access_of(job), model_id)
        try:
            with open(Path(path, ADAPTER), "rb") as file:
                return base_in(file.read(MAX_ADAPTER + 1), f"{ADAPTER} in {model_id}")
        except FileNotFoundError:
            return ""
