"""What streams tell of a job's log: lines, and what is missing."""

from dataclasses import dataclass, field
from typing import Any

from scaimind.core.cursor import Cursor
from scaimind.errors import ProtocolError, ScaiMindError


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry of a job's log. `extra` has fields of a newer gateway."""

    job_id: str
    epoch: str
    offset: int
    level: str
    message: str
    timestamp: str | None
    source: str
    rank: int
    node_id: str
    fields: dict[str, str]
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: dict[str, Any], *, job_id: str, epoch: str) -> "LogLine":
        """Return the line of an event's data. Raises `ProtocolError` if a field is missing."""
        try:
            return cls(
                job_id=job_id,
                epoch=epoch,
                offset=int(value.pop("offset")),
                level=str(value.pop("level")),
                message=str(value.pop("message")),
                timestamp=value.pop("timestamp", None),
                source=str(value.pop("source", "")),
                rank=int(value.pop("rank", 0)),
                node_id=str(value.pop("node_id", "")),
                fields=dict(value.pop("fields", None) or {}),
                extra=value,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError("An entry of the log lacks a field.") from error

    @property
    def cursor(self) -> Cursor:
        """Where to go on behind this line."""
        return Cursor(self.epoch, self.offset)


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that will not come, from `start` to `end`, both included.

    An end is None where nobody knows it. The two have different epochs where the
    job's log has become another one.
    """

    job_id: str
    start: Cursor | None
    end: Cursor | None
    reason: str

    @classmethod
    def of(cls, value: dict[str, Any], *, job_id: str) -> "Gap":
        """Return the gap of an event's data."""
        start, end = _place(value.get("from")), _place(value.get("to"))
        return cls(job_id, start, end, str(value.get("reason", "")))

    def __str__(self) -> str:
        """Say what is missing, for people."""
        if self.start is None:
            return f"lines are missing: {self.reason}"
        if self.end is None or self.end.epoch != self.start.epoch:
            return f"lines from {self.start.offset} on are missing: {self.reason}"
        return f"lines {self.start.offset} to {self.end.offset} are missing: {self.reason}"


def _place(value: object) -> Cursor | None:
    try:
        return Cursor.parse(value) if isinstance(value, str) else None
    except ScaiMindError as error:
        raise ProtocolError("A gap of the log has no place.") from error
