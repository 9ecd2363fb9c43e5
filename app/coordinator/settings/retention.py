"""Settings of what is kept of jobs that have ended, and of the room that stays free."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, parsed
from app.configuration.values import parse_seconds, parse_size_or_zero
from app.coordinator.settings.values import parse_days


@dataclass(frozen=True, kw_only=True)
class RetentionSettings(Section):
    """What is kept of jobs that have ended."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"

    retention_days: int = parsed(
        0,
        "Days after its end at which a job is deleted, with its log, metrics and checkpoints; 0 "
        "keeps all. Exports and registered models stay, and so does what another job will read.",
        parse_days,
        example="90",
    )
    retention_bytes: int = parsed(
        0,
        "Maximum size of all jobs that have ended, without their exports. Beyond it the ones that "
        "ended first are deleted; 0 sets no limit.",
        parse_size_or_zero,
        example="500GiB",
    )
    retention_interval: float = parsed(
        300.0, "Time between two looks for jobs to delete.", parse_seconds
    )
    min_free_bytes: int = parsed(
        0,
        "Free space below which no job is taken up, on the disks of data_dir, drive_dir and the "
        "tenant's folder. 1% of the disk, at most 1GiB, if not set.",
        parse_size_or_zero,
        example="10GiB",
    )
