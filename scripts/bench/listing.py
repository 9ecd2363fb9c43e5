"""Time lists of jobs in the coordinator's store, by every filter, against the unfiltered page.

.venv/bin/python -m scripts.bench.listing [--jobs 1000000] [--rounds 60]

Fills a store with jobs of one tenant, and reads pages as ListJobs does: a count
and 20 jobs. Prints milliseconds and the ratio of each filter's p99 to the
unfiltered page's; 1 if one is over the limit.
"""

import argparse
import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

from app.coordinator.jobs.lister import JobLister
from app.coordinator.jobs.listing import Filters, Order
from app.coordinator.jobs.model import Kind
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

LIMIT = 3.0
START = 1_700_000_000_000_000
TEAMS = 100
USERS = 1000
STATE = (
    '{"message": "", "error_message": "", "demand": {"node_ids": [], "selector": []},'
    ' "parent_job_id": "", "run_count": 0, "retry_count": 0, "intent": "", "intent_reason": "",'
    ' "placement": [], "node_ids": [], "resume_from": "", "output_path": "", "artefacts_of": "",'
    ' "exit_code": 0, "progress": {"step": 0, "total_steps": 0, "epoch": 0, "loss": null},'
    ' "not_before": 0}'
)


def fill(path: Path, jobs: int) -> None:
    """Make the store."""
    SqliteStore(path).close()
    submission = SubmitJobRequest(name="a job").SerializeToString()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        numbers = (
            f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs - 1})"
        )
        db.execute(
            f"""
            {numbers}
            INSERT INTO jobs SELECT printf('job-%020d', i * 7919 % {jobs}), 't',
                'user-' || (i * 31 % {USERS}), 'nightly run ' || i,
                CASE WHEN i % 50 = 0 THEN 'evaluation' ELSE 'training' END,
                CASE WHEN i % 20 = 0 THEN {int(Status.FAILED)} ELSE {int(Status.COMPLETED)} END,
                5, 'default', 1, {START} + i * 1000000, {START} + i * 1000000, 0, 0, 0,
                {START} + i * 1000000, ?, NULL, ? FROM n
            """,
            (submission, STATE),
        )
        db.execute(
            "INSERT INTO job_search"
            " SELECT tenant_id, created_at, job_id, kind, user_id, name, '' FROM jobs"
        )
        db.execute(
            f"""
            INSERT INTO job_labels
            SELECT job_id, 'team', 'team-' || (created_at / 1000000 % {TEAMS}), tenant_id,
                created_at
            FROM jobs UNION ALL
            SELECT job_id, 'stage', CASE WHEN created_at / 1000000 % 2 THEN 'test' ELSE 'real' END,
                tenant_id, created_at FROM jobs
            """
        )
        db.commit()


def filters(jobs: int) -> dict[str, Filters]:
    """Every filter: what is rare and what is common."""
    return {
        "no filter": Filters(),
        "a rare label": Filters(labels={"team": "team-7"}),
        "a common label": Filters(labels={"stage": "real"}),
        "two labels": Filters(labels={"stage": "real", "team": "team-8"}),
        "a user": Filters(users=["user-7"]),
        "three users": Filters(users=["user-7", "user-8", "user-9"]),
        "a rare name": Filters(name=f"RUN {jobs - 5}"),
        "a common name": Filters(name="Nightly"),
        "evaluations": Filters(kind=Kind.EVALUATION),
        "trainings": Filters(kind=Kind.TRAINING),
        "the newest tenth": Filters(created_after=START + jobs * 900_000),
        "label and user": Filters(labels={"team": "team-7"}, users=["user-217"]),
    }


async def measure(path: Path, jobs: int, rounds: int) -> int:
    """Time each, in turns, so that all meet the same machine."""
    store = SqliteStore(path)
    lister = JobLister(store)
    asked = filters(jobs)
    times: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(rounds + 1):
        for name, wanted in asked.items():
            began = perf_counter()
            await lister.page("t", filters=wanted, order=Order(), page_size=20, page_token="")
            if turn:
                times[name].append((perf_counter() - began) * 1000)
    lister.close()
    store.close()
    limit = quantiles(times["no filter"], n=100)[98] * LIMIT
    missed = 0
    print(f"{'milliseconds':<24} {'p50':>8} {'p99':>8} {'ratio':>8}")
    for name, found in times.items():
        p99 = quantiles(found, n=100)[98]
        missed += p99 > limit
        print(f"{name:<24} {median(found):>8.2f} {p99:>8.2f} {p99 * LIMIT / limit:>7.2f}x")
    print(f"{'MISSED' if missed else 'met'}: every filter within {LIMIT:g} times no filter, at p99")
    return int(missed > 0)


def main() -> int:
    """Print the table; 1 if a filter is over the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scaimind-bench-") as folder:
        path = Path(folder, "coordinator.db")
        began = perf_counter()
        fill(path, given.jobs)
        print(
            f"{given.jobs:,} jobs in {perf_counter() - began:.0f} s,"
            f" {path.stat().st_size >> 20} MiB"
        )
        return asyncio.run(measure(path, given.jobs, given.rounds))


if __name__ == "__main__":
    raise SystemExit(main())
