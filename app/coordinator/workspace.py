"""What a run needs before it starts: its directory, scripts, data and environment."""

import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from . import jobdir_steps, logs
from .artefacts import Artefacts, Exported
from .copying import copy_file, copy_open_file
from .drive import ATLAS_SCHEME, SCHEME, BadUrl, Drive
from .evaluations import SCRIPT, process_config
from .exporting import CannotConvert
from .inputs import Inputs, access_of
from .jobdir import JobDir, write_json
from .metrics import MetricsWriter
from .records import Checkpoint, JobRecord, Kind

#: How a directory that is still being written may be named.
UNFINISHED: Final = (".tmp", ".part", ".partial", ".incomplete")
_STEP: Final = re.compile(r"(\d+)$")


class Unprepared(Exception):
    """Something that the job needs cannot be had; the message is for the caller."""


class Workspace:
    """Sets up jobs' directories and brings their artefacts away. Blocks: call it in a thread."""

    def __init__(self, *, jobs: Path, drive: Drive, inputs: Inputs, artefacts: Artefacts) -> None:
        self._jobs = jobs
        self._drive = drive
        self._inputs = inputs
        self._artefacts = artefacts

    def directory(self, job_id: str) -> JobDir:
        """The directory of a job."""
        return JobDir(self._jobs / job_id)

    def create(self, job_id: str) -> None:
        """Make the directory of a new job, with an empty log."""
        directory = self.directory(job_id)
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.lock.touch()
        logs.create(directory.log)
        MetricsWriter(directory.metrics).close()
        jobdir_steps.mark_new(directory)

    def clear_temporary(self, job: JobRecord) -> None:
        """Remove what a run left in its TMPDIR."""
        shutil.rmtree(self.directory(job.job_id).temporary, ignore_errors=True)

    def checkpoints_path(self, job: JobRecord) -> Path:
        """SCAIMIND_CHECKPOINT_DIR."""
        return self._drive.destination(
            access_of(job), self._drive.url(job.tenant_id, f"jobs/{job.job_id}/checkpoints")
        )

    def prepare(self, job: JobRecord, abandoned: threading.Event) -> None:
        """Fetch what the job names and write its configuration. Raises Unprepared, Abandoned,
        OSError."""
        directory = self.directory(job.job_id)
        self.clear_temporary(job)
        self.release(job.job_id)

        def fetch(url: str) -> str:
            return str(self._inputs.fetch(job, url, abandoned))

        folders = (directory.work, directory.output, directory.temporary)
        try:
            access = access_of(job)
            for path in (*folders, self.checkpoints_path(job)):
                path.mkdir(parents=True, exist_ok=True)
            if job.kind is Kind.EVALUATION:
                copy_file(SCRIPT, self.script(job), abandoned)
                config = process_config(job, fetch)
            else:
                given = job.submission.training_config.framework.custom_script_path
                with self._drive.filesystem(access).open(given) as script:
                    copy_open_file(script, self.script(job), abandoned)
                config = _training_config(job, fetch)
            if job.resume_from:
                self._drive.find(access, job.resume_from)
        except BadUrl as error:
            raise Unprepared(str(error)) from None
        config["job_id"] = job.job_id
        write_json(directory.config, config)

    def script(self, job: JobRecord) -> Path:
        """The job's copy of its script."""
        if job.kind is Kind.EVALUATION:
            return self.directory(job.job_id).work / SCRIPT.name
        url = job.submission.training_config.framework.custom_script_path
        return self.directory(job.job_id).work / url.rsplit("/", 1)[-1]

    def checkpoints(self, job: JobRecord) -> tuple[Checkpoint, ...]:
        """The complete checkpoints of a job, oldest first; those over `max_checkpoints` go."""
        known = {checkpoint.checkpoint_id: checkpoint for checkpoint in job.checkpoints}
        found = []
        root = self.checkpoints_path(job)
        if not root.is_dir():
            return ()
        for entry in os.scandir(root):
            unfinished = entry.name.startswith(".") or entry.name.endswith(UNFINISHED)
            if unfinished or not entry.is_dir(follow_symlinks=False):
                continue
            found.append(known.get(entry.name) or _checkpoint(entry))
        found.sort(key=lambda checkpoint: (checkpoint.step, checkpoint.created_at))
        limit = job.submission.output_config.max_checkpoints
        if limit and len(found) > limit:
            for checkpoint in found[:-limit]:
                shutil.rmtree(root / checkpoint.checkpoint_id, ignore_errors=True)
            found = found[-limit:]
        return tuple(found)

    def export(self, job: JobRecord, abandoned: threading.Event) -> Exported:
        """Bring the artefacts to their destination. Raises Unprepared, Abandoned, OSError."""
        try:
            return self._artefacts.export(job, self.directory(job.job_id), abandoned)
        except (BadUrl, CannotConvert) as error:
            raise Unprepared(str(error)) from None

    def release(self, job_id: str) -> None:
        """Let go of what was fetched for a job."""
        self._inputs.release(job_id)


def _training_config(job: JobRecord, fetch: Callable[[str], str]) -> dict[str, Any]:
    """The submitted configs; `local_path` is where what they name can be read."""
    config = to_dict(job.submission)
    for source in config["data_config"]["sources"]:
        source["local_path"] = fetch(source["path"])
    base = config["training_config"]["base_model"]
    # Any other name is a hub's, for the script to look up.
    if base["model_id"].startswith((SCHEME, ATLAS_SCHEME, "/")):
        base["local_path"] = fetch(base["model_id"])
    return config


def _checkpoint(entry: os.DirEntry[str]) -> Checkpoint:
    number = _STEP.search(entry.name)
    size = sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(entry.path)
        for name in names
    )
    created = entry.stat(follow_symlinks=False).st_mtime_ns // 1000
    return Checkpoint(entry.name, int(number[1]) if number else 0, size, created)


def to_dict(message: Message) -> dict[str, Any]:
    """A message as a job's script reads it: the contract's names, enums bare, numbers as numbers.

    Unset messages are there with their defaults, absent times are null.
    """
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_single(item, field) for item in value]
    if isinstance(value, Timestamp):
        return value.ToJsonString() if message.HasField(field.name) else None
    return _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return to_dict(value)
    if field.enum_type is not None:
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", field.enum_type.name).upper() + "_"
        return field.enum_type.values_by_number[value].name.removeprefix(prefix)
    return value
