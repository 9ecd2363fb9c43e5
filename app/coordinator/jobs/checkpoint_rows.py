"""Checkpoints as rows of the database, and their pages (AIP-132, AIP-158)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from app.coordinator.database.database import Database
from app.coordinator.jobs.model import Checkpoint
from app.coordinator.storage.page_tokens import make_token, read_token

#: The newest that are told with a job.
TOLD: Final = 100
#: A limit that is none, in both databases.
_ALL: Final = 2**62
_COLUMNS: Final = "name, step, size_bytes, created_at, sequence, identity, measured"


@dataclass(frozen=True, slots=True)
class CheckpointsPage:
    """A page of a job's checkpoints, the newest first."""

    checkpoints: list[Checkpoint]
    next_page_token: str
    total_count: int


def save_checkpoints(
    db: Database,
    job_id: str,
    before: Sequence[Checkpoint],
    after: Sequence[Checkpoint],
) -> None:
    """Bring a job's rows from what was stored to what is to be; call inside a transaction."""
    if before is after:
        return
    same = sum(
        1 for _ in takewhile(lambda pair: pair[0] is pair[1], zip(before, after, strict=False))
    )
    old = {checkpoint.checkpoint_id: checkpoint for checkpoint in before[same:]}
    new = {checkpoint.checkpoint_id: checkpoint for checkpoint in after[same:]}
    db.write_each(
        "DELETE FROM checkpoints WHERE job_id = ? AND name = ?",
        [(job_id, name) for name in old.keys() - new.keys()],
    )
    db.write_each(
        f"INSERT INTO checkpoints (job_id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (job_id, name) DO UPDATE SET step = excluded.step,"
        " size_bytes = excluded.size_bytes, created_at = excluded.created_at,"
        " sequence = excluded.sequence, identity = excluded.identity, measured = excluded.measured",
        [
            (
                job_id,
                name,
                checkpoint.step,
                checkpoint.size_bytes,
                checkpoint.created_at,
                checkpoint.sequence,
                checkpoint.identity,
                checkpoint.measured,
            )
            for name, checkpoint in new.items()
            if old.get(name) != checkpoint
        ],
    )


def newest_checkpoints(db: Database, job_id: str, *, limit: int = _ALL) -> tuple[Checkpoint, ...]:
    """The newest of a job, the oldest of them first; all unless there is a limit."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM checkpoints WHERE job_id = ? ORDER BY sequence DESC LIMIT ?",
        (job_id, limit),
    ).fetchall()
    return tuple(Checkpoint(*row) for row in reversed(rows))


def count_checkpoints(db: Database, job_id: str) -> int:
    """How many a job has."""
    count: int = db.execute(
        "SELECT count(*) FROM checkpoints WHERE job_id = ?", (job_id,)
    ).fetchone()[0]
    return count


def find_checkpoint(db: Database, job_id: str, name: str) -> Checkpoint | None:
    """A job's checkpoint by its id."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM checkpoints WHERE job_id = ? AND name = ?", (job_id, name)
    ).fetchone()
    return Checkpoint(*row) if row else None


def list_checkpoints(
    db: Database, job_id: str, *, page_size: int, page_token: str
) -> CheckpointsPage:
    """A page of a job's checkpoints. Raises InvalidArgument for a foreign token.

    One that is written anew while the pages are read moves to the front.
    """
    asked = ["checkpoints", job_id]
    behind = 2**63 - 1
    if page_token:
        (behind,) = read_token(page_token, asked, int)
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM checkpoints WHERE job_id = ? AND sequence < ?"
        " ORDER BY sequence DESC LIMIT ?",
        (job_id, behind, page_size + 1),
    ).fetchall()
    token = ""
    if len(rows) > page_size:
        rows = rows[:page_size]
        token = make_token(asked, rows[-1]["sequence"])
    return CheckpointsPage([Checkpoint(*row) for row in rows], token, count_checkpoints(db, job_id))
