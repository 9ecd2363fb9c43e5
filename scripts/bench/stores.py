"""What a submission and a change of state cost in SQLite and in PostgreSQL, in turns.

    python -m scripts.bench.stores [--rounds N]

PostgreSQL is started for this, on a Unix socket, with its own defaults: each
commit is synced to the disk. SQLite syncs none of them.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import click

from app.coordinator.database.leader_table import LeaderTable
from app.coordinator.database.postgres_connection import PostgresAddress
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.postgres_store import PostgresStore
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.store import Store, UsedKey
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.ownership.lease import Lease
from app.local.bootstrap import make_database
from app.local.data_dir import DataDir
from app.local.postgres import Postgres, socket_folder
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

_SCHEMA: Final = "bench"


def submit(store: Store, number: int) -> JobRecord:
    """Store a job as a submission does: its row, what lists find it by, and its key."""
    job = JobRecord(
        job_id=f"job-{number}",
        tenant_id="t",
        user_id="u",
        name="bench",
        submission=SubmitJobRequest(name="bench", labels={"team": "a", "kind": "b"}),
        resource_request=ResourceRequest(),
        created_at=number,
        updated_at=number,
    )
    with store.transaction():
        store.save_jobs([job])
        store.save_checkpoints(None, job)
        store.save_search(job)
        store.save_key("t", f"key-{number}", UsedKey(b"digest", job.job_id), now=number, since=0)
    return job


def change(store: Store, job: JobRecord) -> None:
    """Store a job's next state."""
    changed = replace(job, status=Status.QUEUED, revision=job.revision + 1)
    with store.transaction():
        store.save_jobs([changed])
        store.save_checkpoints(job, changed)


def measure(stores: dict[str, Store], rounds: int) -> None:
    """Time both in both, in turns, so that all meet the same machine."""
    times: dict[tuple[str, str], list[float]] = {}

    def timed(name: str, what: str, call: Callable[[], JobRecord | None]) -> JobRecord | None:
        began = time.perf_counter()
        result = call()
        times.setdefault((what, name), []).append(time.perf_counter() - began)
        return result

    for number in range(rounds):
        for name, store in stores.items():
            job = timed(name, "submission", partial(submit, store, number))
            assert job is not None
            timed(name, "change", partial(change, store, job))
    for (what, name), taken in sorted(times.items()):
        slowest = sorted(taken)[int(len(taken) * 0.99)]
        click.echo(
            f"{what:10} {name:10} median {statistics.median(taken) * 1e3:6.2f} ms,"
            f" 99th percentile {slowest * 1e3:6.2f} ms"
        )


def run(folder: Path, dsn: str, rounds: int) -> None:
    """Open both stores and measure."""
    address = PostgresAddress(dsn, _SCHEMA)
    with closing(LeaderTable(address, patience=30)) as table:
        table.prepare()
        lease = Lease(table, seconds=3600, term_file=TermFile.of(folder), lost=lambda _: None)
        lease.try_take(holder="bench", address="")
        with (
            closing(lease),
            closing(SqliteStore(folder / "bench.db")) as sqlite,
            closing(
                PostgresStore(address, leadership=lease, note=folder / "note", patience=30)
            ) as postgres,
        ):
            measure({"SQLite": sqlite, "PostgreSQL": postgres}, rounds)


async def _start(server: Postgres) -> None:
    await server.start()
    await server.during(asyncio.to_thread(make_database, server.dsn, server.data_dir))


@click.command()
@click.option("--rounds", default=1000, show_default=True, help="Jobs that are submitted.")
def main(rounds: int) -> None:
    """Print what storing costs."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory(prefix="scaimind-") as folder:
        data_dir = DataDir(Path(folder, "data"))
        data_dir.prepare()
        with socket_folder(data_dir) as sockets, data_dir.children_lock() as lock:
            server = Postgres(
                data_dir,
                tell=lambda _: None,
                holding=lock.descriptor,
                socket_folder=sockets,
            )
            runner.run(_start(server))
            try:
                run(Path(folder), server.dsn, rounds)
            finally:
                runner.run(server.service.stop())


if __name__ == "__main__":
    main()
