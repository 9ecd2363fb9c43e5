"""Moves the checkpoints of jobs, which were in each job's JSON, to a table of their own."""

import sqlite3
from typing import Any, Final

import orjson

#: The largest step and size that are kept.
_MOST: Final = 2**53 - 1
_TABLE: Final = """
CREATE TABLE checkpoints (
    job_id TEXT NOT NULL REFERENCES jobs,
    name TEXT NOT NULL,
    -- In the order in which they were seen complete.
    sequence INTEGER NOT NULL,
    step INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    identity TEXT NOT NULL,
    measured INTEGER NOT NULL,
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID
"""
#: The end of the year 9999, in microseconds since 1970: no message can tell a later time.
_LATEST: Final = 253_402_300_799_000_000


def move_checkpoints_apart(db: sqlite3.Connection) -> None:
    """A step of the store. The older of two is the one whose directory was the older.

    Numbers were kept unbounded, and names whatever they were.
    """
    db.execute(_TABLE)
    db.execute("CREATE INDEX checkpoints_by_age ON checkpoints (job_id, sequence)")
    for (job_id,) in db.execute("SELECT job_id FROM jobs").fetchall():
        (text,) = db.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        state: dict[str, Any] = orjson.loads(text)
        listed = [
            each
            for each in state.pop("checkpoints", ())
            if each["checkpoint_id"] and each["checkpoint_id"].isprintable()
        ]
        listed.sort(key=lambda each: (each["created_at"], each["step"]))
        db.executemany(
            "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, '', 0)",
            [
                (
                    job_id,
                    each["checkpoint_id"],
                    sequence,
                    each["step"] if 0 <= each["step"] <= _MOST else 0,
                    min(max(each["size_bytes"], 0), _MOST),
                    min(max(each["created_at"], 0), _LATEST),
                )
                for sequence, each in enumerate(listed, 1)
            ],
        )
        db.execute(
            "UPDATE jobs SET state = ? WHERE job_id = ?", (orjson.dumps(state).decode(), job_id)
        )
