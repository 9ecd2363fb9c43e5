"""Answers of single operations, which are no objects of the API."""

from dataclasses import dataclass, field

from scaimind.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionCheck(Model):
    """What would become of a submission."""

    valid: bool = field(default=False, metadata={"kind": bool})
    #: Whether it would start at once.
    would_start: bool = field(default=False, metadata={"kind": bool})
    estimated_wait_seconds: int = field(default=0, metadata={"kind": int})
    #: What it would wait for, for people; empty when it would start.
    waiting_for: str = field(default="", metadata={"kind": str})
    #: What is allowed but probably not meant, for people.
    warnings: tuple[str, ...] = field(default=(), metadata={"kind": ("list", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedJob(Model):
    """A job that was deleted."""

    job_id: str = field(default="", metadata={"kind": str})
    #: Of its log, metrics, checkpoints and directories.
    freed_bytes: int = field(default=0, metadata={"kind": int})
