"""Deleted jobs, and those that are kept, as rows of the database."""

from dataclasses import dataclass
from typing import Final

from app.coordinator.database.database import Database
from app.coordinator.jobs.states import RETRYABLE

#: The tables with rows of a job, those that others refer to last.
_TABLES: Final = ("job_labels", "job_search", "checkpoints", "kept_bytes", "jobs")


@dataclass(frozen=True, slots=True)
class DeletedJob:
    """A job that is no more, and of which there may be files."""

    job_id: str
    tenant_id: str


@dataclass(frozen=True, slots=True)
class KeptJob:
    """A job that has ended, and the bytes that it takes up; None before they were measured."""

    job_id: str
    tenant_id: str
    #: Microseconds since 1970.
    ended_at: int
    size_bytes: int | None


def delete_job(db: Database, tenant_id: str, job_id: str, *, now: int) -> bool:
    """Forget a job and note that its files are to go; whether it was there. Call inside a
    transaction."""
    found = db.execute(
        "INSERT INTO deleted_jobs SELECT job_id, tenant_id, ? FROM jobs"
        " WHERE job_id = ? AND tenant_id = ? RETURNING job_id",
        (now, job_id, tenant_id),
    ).fetchone()
    if found is None:
        return False
    for table in _TABLES:
        db.write(f"DELETE FROM {table} WHERE job_id = ?", (job_id,))
    return True


def deleted_jobs(db: Database, *, limit: int) -> list[DeletedJob]:
    """Jobs whose files are to go."""
    rows = db.execute("SELECT job_id, tenant_id FROM deleted_jobs LIMIT ?", (limit,))
    return [DeletedJob(*row) for row in rows]


def forget_deleted(db: Database, job_id: str) -> None:
    """Note that nothing is left of a deleted job."""
    db.write("DELETE FROM deleted_jobs WHERE job_id = ?", (job_id,))


def may_read_again(db: Database, tenant_id: str, job_id: str) -> bool:
    """Whether another job has ended that would read this one's files if it were retried.

    What a job reads is what its grant names, below or above this one's checkpoints.
    """
    checkpoints = f"scaidrive://{tenant_id}/jobs/{job_id}/checkpoints/"
    folder = f"scaidrive://{tenant_id}/jobs/{job_id}/"
    retryable = ", ".join(str(int(status)) for status in sorted(RETRYABLE))
    # The expressions are those of the indices.
    resumes_from = db.dialect.state_text("resume_from")
    exports_of = db.dialect.state_text("artefacts_of")
    return bool(
        db.execute(
            f"""
            SELECT EXISTS (
                SELECT 1 FROM jobs WHERE status IN ({retryable}) AND job_id <> ?
                AND {resumes_from} <> ''
                AND {resumes_from} >= ?
                AND {resumes_from} < ?
            ) OR EXISTS (
                SELECT 1 FROM jobs WHERE status IN ({retryable}) AND job_id <> ?
                AND {exports_of} <> ''
                AND {exports_of} = ?
            ) OR EXISTS (
                SELECT 1 FROM jobs, {db.dialect.state_urls("grant.urls")}
                WHERE tenant_id = ? AND status IN ({retryable}) AND job_id <> ?
                AND (
                    substr(rtrim(url.value, '/') || '/', 1, ?) = ?
                    OR substr(?, 1, length(rtrim(url.value, '/')) + 1)
                        = rtrim(url.value, '/') || '/'
                )
            )
            """,
            (
                # `0` is the character behind `/`.
                *(job_id, folder, f"{folder[:-1]}0", job_id, job_id),
                *(tenant_id, job_id, len(checkpoints), checkpoints, checkpoints),
            ),
        ).fetchone()[0]
    )


def save_kept_bytes(db: Database, job_id: str, directory: int, checkpoints: int) -> None:
    """Keep what a job takes up, if it is still there; call inside a transaction."""
    db.write(
        "INSERT INTO kept_bytes SELECT job_id, ?, ? FROM jobs WHERE job_id = ?"
        " ON CONFLICT (job_id) DO UPDATE SET directory = excluded.directory,"
        " checkpoints = excluded.checkpoints",
        (directory, checkpoints, job_id),
    )


def kept_bytes(db: Database) -> tuple[int, int]:
    """What all ended jobs take up that were measured: their directories, their checkpoints."""
    row = db.execute(
        "SELECT CAST(coalesce(sum(directory), 0) AS BIGINT),"
        " CAST(coalesce(sum(checkpoints), 0) AS BIGINT) FROM kept_bytes"
    ).fetchone()
    return row[0], row[1]


def oldest_kept(db: Database, behind: tuple[int, str], *, limit: int) -> list[KeptJob]:
    """Ended jobs by their end, behind the one with this end and id."""
    rows = db.execute(
        "SELECT jobs.job_id, tenant_id, ended_at, directory + checkpoints"
        " FROM jobs LEFT JOIN kept_bytes ON kept_bytes.job_id = jobs.job_id"
        " WHERE ended_at > 0 AND (ended_at, jobs.job_id) > (?, ?)"
        " ORDER BY ended_at, jobs.job_id LIMIT ?",
        (*behind, limit),
    )
    return [KeptJob(*row) for row in rows]
