"""Brings the measured times of stored jobs' runs to where they are read now."""

import sqlite3
from typing import Final

#: Microseconds: ten years, the longest that a run can have been asked to take.
_LONGEST: Final = 10 * 365 * 24 * 3600 * 1_000_000


def keep_run_times(db: sqlite3.Connection) -> None:
    """Store how long the newest run of jobs that have ended took, as the clock had it.

    It may have been set meanwhile: no time is negative, and none above ten
    years. Call within a transaction. Raises sqlite3.Error.
    """
    db.execute(
        """
        UPDATE jobs
        SET state = json_set(state, '$.ran', max(min(ended_at - run_started_at, ?), 0))
        WHERE ended_at > 0 AND run_started_at > 0
        """,
        (_LONGEST,),
    )
