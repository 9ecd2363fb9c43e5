"""What becomes of what a training process wrote: converted, brought away, registered."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from generated.mindcoordinator.v1.jobs_pb2 import TrainingType

from .atlas import Atlas
from .copying import copy_tree
from .drive import Drive
from .exporting import convert
from .inputs import access_of
from .jobdir import JobDir
from .records import JobRecord


@dataclass(frozen=True, slots=True)
class Exported:
    """Where a job's artefacts are."""

    url: str
    #: In ScaiAtlas; empty if they were not to be registered.
    model_url: str = ""


class Artefacts:
    """Brings jobs' artefacts to their destinations. Blocks: call it in a thread."""

    def __init__(self, *, drive: Drive, atlas: Atlas, clock: Callable[[], int]) -> None:
        self._drive = drive
        self._atlas = atlas
        self._clock = clock

    def export(self, job: JobRecord, directory: JobDir, abandoned: threading.Event) -> Exported:
        """Convert, bring away, and register; done again, it has the same result.

        A destination that is not there appears as a whole; in one that is
        there, files are replaced one by one. Raises BadUrl, CannotConvert,
        Abandoned, OSError.
        """
        asked = job.submission.output_config
        url = asked.path or self._drive.url(job.tenant_id, f"jobs/{job.job_id}/output")
        target = self._drive.destination(access_of(job), url)
        with _converted(asked.export_format, directory, abandoned) as made:
            _bring(made, target, job.job_id, abandoned)
            if not asked.register_model:
                return Exported(url)
            model_url = self._atlas.register(
                tenant_id=job.tenant_id,
                name=asked.model_name,
                files=made,
                job_id=job.job_id,
                about=self._about(job),
                abandoned=abandoned,
            )
        return Exported(url, model_url)

    def _about(self, job: JobRecord) -> dict[str, Any]:
        training = job.submission.training_config
        now = Timestamp()
        now.FromMicroseconds(self._clock())
        return {
            "tenant_id": job.tenant_id,
            "user_id": job.user_id,
            "created_at": now.ToJsonString(),
            "base_model": training.base_model.model_id,
            "training_type": TrainingType.Name(training.training_type).removeprefix(
                "TRAINING_TYPE_"
            ),
            "format": job.submission.output_config.export_format,
            "steps": job.progress.step,
            "loss": job.progress.loss,
        }


@contextmanager
def _converted(export_format: str, directory: JobDir, abandoned: threading.Event) -> Iterator[Path]:
    """The artefacts in a format, as long as they are needed."""
    if not export_format:
        yield directory.output
        return
    made = directory.path / "export"
    try:
        convert(export_format, directory.output, made, abandoned=abandoned)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _bring(made: Path, target: Path, job_id: str, abandoned: threading.Event) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        copy_tree(made, target, abandoned)
        return
    fresh = target.parent / f".{target.name}.{job_id}.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        copy_tree(made, fresh, abandoned)
        fresh.rename(target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
