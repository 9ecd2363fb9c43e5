"""What a run needs before it starts: its directory, scripts, data and environment."""

import os
import re
import shutil
import stat
import sys
import threading
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from . import logs
from .drive import BadUrl, Drive
from .evaluations import SCRIPT, process_config
from .jobdir import JobDir, write_json
from .metrics import MetricsWriter
from .records import Checkpoint, JobRecord, Kind

#: How a directory that is still being written may be named.
UNFINISHED: Final = (".tmp", ".part", ".partial", ".incomplete")
_STEP: Final = re.compile(r"(\d+)$")
_COPY: Final = 1024 * 1024


class Unprepared(Exception):
    """Something that the job needs cannot be had; the message is for the caller."""


class Abandoned(Exception):
    """Nobody wants the result any more."""


class Workspace:
    """Sets up jobs' directories and brings their artefacts away. Blocks: call it in a thread."""

    def __init__(self, *, jobs: Path, drive: Drive, node_id: str) -> None:
        self._jobs = jobs
        self._drive = drive
        self._node_id = node_id

    def directory(self, job_id: str) -> JobDir:
        """The directory of a job."""
        return JobDir(self._jobs / job_id)

    def create(self, job_id: str) -> None:
        """Make the directory of a new job, with an empty log."""
        directory = self.directory(job_id)
        directory.path.mkdir(parents=True, exist_ok=True)
        logs.create(directory.log)
        MetricsWriter(directory.metrics).close()

    def checkpoints_path(self, job: JobRecord) -> Path:
        """SCAIMIND_CHECKPOINT_DIR."""
        return self._drive.locate(
            job.tenant_id, self._drive.url(job.tenant_id, f"jobs/{job.job_id}/checkpoints")
        )

    def prepare(self, job: JobRecord, abandoned: threading.Event) -> None:
        """Fetch what the job names and write its configuration. Raises Unprepared, Abandoned,
        OSError."""
        directory = self.directory(job.job_id)
        for path in (directory.work, directory.output, self.checkpoints_path(job)):
            path.mkdir(parents=True, exist_ok=True)
        try:
            if job.kind is Kind.EVALUATION:
                copy_file(SCRIPT, self.script(job), abandoned)
                config = process_config(job, self._drive)
            else:
                given = job.submission.training_config.framework.custom_script_path
                copy_file(self._drive.find(job.tenant_id, given), self.script(job), abandoned)
                config = self._training_config(job)
            if job.resume_from:
                self._drive.find(job.tenant_id, job.resume_from)
        except BadUrl as error:
            raise Unprepared(str(error)) from None
        config["job_id"] = job.job_id
        write_json(directory.config, config)

    def _training_config(self, job: JobRecord) -> dict[str, Any]:
        config = to_dict(job.submission)
        for source in config["data_config"]["sources"]:
            source["local_path"] = str(self._drive.find(job.tenant_id, source["path"]))
        return config

    def script(self, job: JobRecord) -> Path:
        """The job's copy of its script."""
        if job.kind is Kind.EVALUATION:
            return self.directory(job.job_id).work / SCRIPT.name
        url = job.submission.training_config.framework.custom_script_path
        return self.directory(job.job_id).work / url.rsplit("/", 1)[-1]

    def run_spec(self, job: JobRecord, *, notify: Path, grace: float) -> dict[str, Any]:
        """What the runner is told of the job's newest run."""
        directory = self.directory(job.job_id)
        resume = self._drive.find(job.tenant_id, job.resume_from) if job.resume_from else None
        nodes = ", ".join(job.node_ids)
        where = f", going on from {job.resume_from}" if resume else ""
        return {
            "job_id": job.job_id,
            "node_id": job.node_ids[0],
            "argv": [sys.executable, str(self.script(job))],
            "cwd": str(directory.work),
            "env": self._environment(job, resume),
            "grace_seconds": grace,
            "notify": str(notify),
            "announce": f"Run {job.run_count} begins on {nodes}{where}.",
        }

    def _environment(self, job: JobRecord, resume: Path | None) -> dict[str, str]:
        directory = self.directory(job.job_id)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory.work),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            # Lines are to be seen when they are printed, not 8 KiB later.
            "PYTHONUNBUFFERED": "1",
            # Of this machine; those of a virtual node are not there.
            "CUDA_VISIBLE_DEVICES": ",".join(
                str(index)
                for share in job.placement
                if share.node_id == self._node_id
                for index in share.gpus
            ),
            **job.submission.training_config.environment,
            "SCAIMIND_JOB_ID": job.job_id,
            "SCAIMIND_JOB_CONFIG": str(directory.config),
            "SCAIMIND_OUTPUT_DIR": str(directory.output),
            "SCAIMIND_CHECKPOINT_DIR": str(self.checkpoints_path(job)),
            "SCAIMIND_RESUME_FROM": str(resume) if resume else "",
            "SCAIMIND_METRICS_FILE": str(directory.run(job.run_count).metrics_file),
        }

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

    def export(self, job: JobRecord, abandoned: threading.Event) -> str:
        """Bring the artefacts to their destination; returns its URL.

        A destination that is not there appears as a whole; in one that is
        there, files are replaced one by one. Raises Unprepared, Abandoned,
        OSError.
        """
        output = self.directory(job.job_id).output
        url = job.submission.output_config.path or self._drive.url(
            job.tenant_id, f"jobs/{job.job_id}/output"
        )
        try:
            target = self._drive.locate(job.tenant_id, url)
        except BadUrl as error:
            raise Unprepared(str(error)) from None
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            _copy_tree(output, target, abandoned)
            return url
        fresh = target.parent / f".{target.name}.{job.job_id}.partial"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            _copy_tree(output, fresh, abandoned)
            fresh.rename(target)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return url


def _checkpoint(entry: os.DirEntry[str]) -> Checkpoint:
    number = _STEP.search(entry.name)
    size = sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(entry.path)
        for name in names
    )
    created = entry.stat(follow_symlinks=False).st_mtime_ns // 1000
    return Checkpoint(entry.name, int(number[1]) if number else 0, size, created)


def _copy_tree(source: Path, target: Path, abandoned: threading.Event) -> None:
    """Copy files and directories; symbolic links are left out, they may lead anywhere."""
    target.mkdir(exist_ok=True)
    for entry in os.scandir(source):
        if entry.is_dir(follow_symlinks=False):
            _copy_tree(Path(entry.path), target / entry.name, abandoned)
        elif entry.is_file(follow_symlinks=False):
            copy_file(Path(entry.path), target / entry.name, abandoned)


def copy_file(source: Path, target: Path, abandoned: threading.Event) -> None:
    """Copy a file so that `target` is there as a whole or not at all."""
    fresh = target.with_name(f".{target.name}.partial")
    try:
        with open(source, "rb") as reader, open(fresh, "wb") as writer:
            while block := reader.read(_COPY):
                if abandoned.is_set():
                    raise Abandoned
                writer.write(block)
        fresh.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IRUSR | stat.S_IWUSR)
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


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
