"""What becomes of what a training process wrote: converted, brought away, registered."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.data.atlas import Atlas
from app.coordinator.data.conversion.conversion import Converter
from app.coordinator.data.drive import CHECKPOINTS, Drive, Place
from app.coordinator.execution.inputs import access_of
from app.coordinator.execution.job_config import to_dict
from app.coordinator.jobs.model import JobRecord
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.trainers.models import EXPORTS, uses_trainers
from app.files.copying import Report, Twins, copy_tree
from app.files.directory import Directory
from app.files.removing import remove_tree
from app.files.staging import staged_directory
from app.files.walking import Limits

#: Names of what was left out that a job's log has.
_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Exported:
    """Where a job's artefacts are."""

    url: str
    #: In ScaiAtlas; empty if they were not to be registered.
    model_url: str = ""
    #: A line for the job's log about what was left out; empty if nothing was.
    left_out: str = ""


class Artefacts:
    """Brings jobs' artefacts to their destinations. Blocks: call it in a thread."""

    def __init__(
        self,
        *,
        drive: Drive,
        atlas: Atlas,
        converter: Converter,
        limits: Limits,
        clock: Callable[[], int],
    ) -> None:
        """`limits` are those of one job's artefacts."""
        self._drive = drive
        self._atlas = atlas
        self._converter = converter
        self._limits = limits
        self._clock = clock

    def export(
        self, job: JobRecord, output: Path, directory: JobDir, abandoned: threading.Event
    ) -> Exported:
        """Convert, bring away, and register what is in `output`; done again, it has the same
        result.

        A destination that is not there appears as a whole; in one that is
        there, files are replaced one by one. Raises BadUrl, CannotConvert,
        Abandoned, OSError.
        """
        asked = job.submission.output_config
        url = asked.path or self._drive.url(job.tenant_id, f"jobs/{job.job_id}/output")
        place = self._drive.destination(access_of(job), url)
        as_it_is = uses_trainers(job.submission.training_config) and asked.export_format in EXPORTS
        export_format = "" if as_it_is else asked.export_format
        with self._converted(export_format, output, directory, abandoned) as found:
            made, converted = found
            report = self._bring(made, place, job.job_id, abandoned, noted=asked.register_model)
            left_out = _told(converted or report)
            if not asked.register_model:
                return Exported(url, left_out=left_out)
            with self._twins(place, report) as twins:
                model_url = self._atlas.register(
                    tenant_id=job.tenant_id,
                    name=asked.model_name,
                    files=made,
                    job_id=job.job_id,
                    about=self._about(job),
                    limits=self._limits,
                    abandoned=abandoned,
                    twins=twins,
                )
        return Exported(url, model_url, left_out)

    def _bring(
        self,
        made: Directory,
        place: Place,
        job_id: str,
        abandoned: threading.Event,
        *,
        noted: bool,
    ) -> Report:
        directory, name = place.open_destination()
        with directory:
            if not name:
                return copy_tree(
                    made, directory, abandoned, limits=self._limits, note_written=noted
                )
            try:
                with staged_directory(directory, name, label=job_id) as fresh:
                    report = copy_tree(
                        made, fresh, abandoned, limits=self._limits, note_written=noted
                    )
            except FileExistsError:
                # Somebody else has made it meanwhile: another job that exports to the same place.
                with directory.open_directory(name) as existing:
                    return copy_tree(
                        made, existing, abandoned, limits=self._limits, note_written=noted
                    )
            return report

    @contextmanager
    def _twins(self, place: Place, report: Report) -> Iterator[Twins | None]:
        """What was brought to a destination, to be shared; None where jobs can write."""
        if CHECKPOINTS in place.parts:
            yield None
            return
        directory, name = place.open_destination()
        with directory:
            yield None if name else Twins(directory, report.written)

    @contextmanager
    def _converted(
        self, export_format: str, source: Path, directory: JobDir, abandoned: threading.Event
    ) -> Iterator[tuple[Directory, Report | None]]:
        """The artefacts in a format, as long as they are needed, and what it leaves out."""
        if not export_format:
            with Directory.open(source) as output:
                yield output, None
            return
        with self._converter.converted(export_format, source, directory, abandoned) as found:
            yield found

    def _about(self, job: JobRecord) -> dict[str, Any]:
        training = job.submission.training_config
        now = Timestamp()
        now.FromMicroseconds(self._clock())
        return {
            "tenant_id": job.tenant_id,
            "user_id": job.user_id,
            "created_at": now.ToJsonString(),
            "base_model": training.base_model.model_id,
            "training_type": to_dict(training)["training_type"],
            "format": job.submission.output_config.export_format,
            "steps": job.progress.step,
            "loss": job.progress.loss,
        }


def drop_output(directory: JobDir) -> None:
    """Remove the artefacts of a job that has brought them away. Raises OSError."""
    with suppress(FileNotFoundError), Directory.open(directory.path) as own:
        remove_tree(own, directory.output.name)


def _told(report: Report) -> str:
    """What was left out, as a line for the job's log."""
    if not report.left_out_count:
        return ""
    named = [f"{each.path} ({each.what})" for each in report.left_out[:_NAMED]]
    more = report.left_out_count - len(named)
    return (
        f"Left out of the artefacts, which contain only regular files and directories:"
        f" {', '.join(named)}{f' and {more} more' if more else ''}."
    )
