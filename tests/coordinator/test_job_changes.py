"""The record of changes: whoever reads on behind a version misses nothing that was stored."""

import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from app.coordinator.jobs import sqlite_store as store_module
from app.coordinator.jobs.changes import reader as reader_module
from app.coordinator.jobs.changes import record as record_module
from app.coordinator.jobs.changes.reader import ChangeReader, ChangesPage
from app.coordinator.jobs.changes.record import KEPT_FOR
from app.coordinator.jobs.changes.witness import Witness
from app.coordinator.jobs.model import JobRecord, Progress, ResourceRequest
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.steps.store_steps import STEPS, bring_up
from app.coordinator.jobs.store import Store
from generated.mindcoordinator.v1.jobs_pb2 import JobStatus, SubmitJobRequest

HOUR = 3600 * 1_000_000


def record(job_id: str, tenant_id: str = "t") -> JobRecord:
    return JobRecord(
        job_id=job_id,
        tenant_id=tenant_id,
        user_id="u",
        name=f"name of {job_id}",
        submission=SubmitJobRequest(name="n", labels={"team": "vision", "run": job_id}),
        resource_request=ResourceRequest(),
        created_at=1_000_000,
        updated_at=2_000_000,
    )


def save(store: Store, *jobs: JobRecord) -> None:
    with store.transaction():
        store.save_jobs(jobs)


def delete(store: Store, job: JobRecord, now: int = 1) -> None:
    with store.transaction():
        assert store.delete_job(job.tenant_id, job.job_id, now=now)


def boot(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(store_module, "read_boot_id", lambda: name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coordinator.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


@pytest.fixture
def reader(path: Path, store: SqliteStore) -> Iterator[ChangeReader]:
    reader = ChangeReader(store)
    yield reader
    reader.close()


def told(page: ChangesPage) -> list[tuple[int, str]]:
    return [(each.version, each.job.job_id or f"-{each.deleted_job_id}") for each in page.changes]


async def test_a_job_is_told_as_it_is_stored(store: SqliteStore, reader: ChangeReader) -> None:
    job = replace(
        record("a"),
        status=Status.COMPLETED,
        message="Completed.",
        progress=Progress(3, 9, 0.5, 0.25),
        revision=7,
        ended_at=3_000_000,
    )
    with store.transaction():
        store.save_jobs([job])
        store.save_search(job)
    page = await reader.page("t", 0)
    [change] = page.changes
    state = change.job
    assert (state.job_id, state.user_id, state.name) == ("a", "u", "name of a")
    assert (state.status, state.message) == (JobStatus.JOB_STATUS_COMPLETED, "Completed.")
    assert (state.progress.step, state.progress.total_steps) == (3, 9)
    assert (state.progress.epoch, state.progress.loss) == (0.5, 0.25)
    assert dict(state.labels) == {"team": "vision", "run": "a"}
    times = (state.created_at.seconds, state.updated_at.seconds, state.ended_at.seconds)
    assert times == (1, 2, 3)
    assert (state.revision, change.version) == (7, 1)
    save(store, replace(record("b"), progress=Progress()))
    [change] = (await reader.page("t", 1)).changes
    assert not change.job.HasField("ended_at")
    assert not change.job.progress.HasField("loss")


async def test_versions_count_each_tenants_changes(
    store: SqliteStore, reader: ChangeReader
) -> None:
    a, b, foreign = record("a"), record("b"), record("c", "other")
    save(store, a, foreign, b)
    save(store, replace(a, revision=2))
    assert told(await reader.page("t", 0)) == [(2, "b"), (3, "a")]
    assert told(await reader.page("t", 2)) == [(3, "a")]
    assert told(await reader.page("other", 0)) == [(1, "c")]
    assert told(await reader.page("nobody", 0)) == []
    assert (store.reach("t").newest, store.reach("nobody").newest) == (3, 0)


async def test_deletions_are_told_to_those_who_knew_the_job(
    store: SqliteStore, reader: ChangeReader
) -> None:
    a, b = record("a"), record("b")
    save(store, a, b)
    delete(store, a)
    assert told(await reader.page("t", 1)) == [(2, "b"), (3, "-a")]
    assert told(await reader.page("t", 0, deletions_after=3)) == [(2, "b")]
    page = await reader.page("t", 2, deletions_after=3)
    assert (page.changes, page.last, page.complete) == ([], 3, True)


async def test_what_is_undone_is_not_recorded(path: Path) -> None:
    committed: list[frozenset[str]] = []
    with closing(SqliteStore(path, committed=committed.append)) as store:
        twice = replace(record("b"), job_id="a", name=None)  # type: ignore[arg-type]  # cannot be
        with pytest.raises(sqlite3.IntegrityError):
            save(store, record("a"), twice)
        assert committed == []
        assert store.reach("t").newest == 0
        save(store, record("a"), record("b", "other"))
        with store.transaction():
            store.save_drain("n", "why")
    assert committed == [frozenset({"t", "other"}), frozenset()]


async def test_pages_are_bounded_in_changes_and_bytes(
    store: SqliteStore, reader: ChangeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, *(record(f"j{n}") for n in range(25)))
    monkeypatch.setattr(reader_module, "PAGE_CHANGES", 10)
    versions, page = [], await reader.page("t", 0)
    while True:
        versions += [change.version for change in page.changes]
        if page.complete:
            break
        assert len(page.changes) == 10
        page = await reader.page("t", page.last)
    assert versions == list(range(1, 26))
    monkeypatch.setattr(reader_module, "PAGE_BYTES", 1)
    assert len((await reader.page("t", 0)).changes) == 1


async def test_deletions_are_kept_for_an_hour_and_many_changes(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "KEPT_CHANGES", 10)
    jobs = [record(f"j{n}") for n in range(40)]
    save(store, *jobs)
    # All within the hour: nothing is forgotten, however many changes there are.
    for n, job in enumerate(jobs[:20]):
        delete(store, job, now=HOUR + n)
    assert store.reach("t") == record_module.Reach(newest=60, forgotten=0)
    # Those of the last ten changes stay, however old they are.
    for job in jobs[20:25]:
        delete(store, job, now=10 * HOUR)
    reach = store.reach("t")
    assert (reach.newest, reach.forgotten) == (65, 55)
    kept = store._db.execute("SELECT count(*) FROM job_changes WHERE deleted_at > 0").fetchone()[0]
    assert kept == 10


def test_a_deletion_forgets_more_than_one_so_that_the_record_does_not_grow(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "KEPT_CHANGES", 0)
    jobs = [record(f"j{n}") for n in range(40)]
    save(store, *jobs)
    for n, job in enumerate(jobs):
        delete(store, job, now=1 + n * KEPT_FOR // 4)
    kept = store._db.execute("SELECT count(*) FROM job_changes").fetchone()[0]
    assert 4 <= kept <= 5


def test_the_record_never_reaches_further_back_than_it_did(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "KEPT_CHANGES", 0)
    jobs = [record(f"j{n}") for n in range(4)]
    save(store, *jobs)
    # The clock was ahead by a day at the first deletion.
    forgotten = []
    for job, minutes in zip(jobs, (24 * 60, 60, 24 * 60 + 55, 25 * 60 + 10), strict=True):
        delete(store, job, now=minutes * HOUR // 60)
        forgotten.append(store.reach("t").forgotten)
    assert forgotten == [0, 0, 6, 6]


def test_the_epoch_outlives_restarts_and_kills_but_no_power_cut(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot(monkeypatch, "first")
    killed = SqliteStore(path)
    epoch = killed.epoch
    again = SqliteStore(path)
    assert again.epoch == epoch
    again.close()
    killed.close()
    # It was closed: the machine may have been switched off since.
    boot(monkeypatch, "second")
    cut_off = SqliteStore(path)
    assert cut_off.epoch == epoch
    boot(monkeypatch, "third")
    after_the_cut = SqliteStore(path)
    assert after_the_cut.epoch != epoch
    for store in (cut_off, after_the_cut):
        store.close()


def test_a_copy_of_the_store_begins_an_epoch_of_its_own(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        epoch = store.epoch
        save(store, record("a"))
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.rename(path)
    with closing(SqliteStore(path)) as store:
        assert store.epoch != epoch
        assert store.reach("t").newest == 1


def epoch_of(path: Path) -> str:
    with closing(SqliteStore(path)) as store:
        return store.epoch


@pytest.mark.parametrize("closed", [True, False])
def test_a_store_that_was_put_back_begins_an_epoch_of_its_own(path: Path, closed: bool) -> None:
    """By `cp` over itself: the same inode, and the machine has not been started since."""
    store = SqliteStore(path)
    epoch = store.epoch
    save(store, record("a"))
    copy = path.with_name("copy.db")
    if closed:
        store.close()
        shutil.copy(path, copy)
        store = SqliteStore(path)
    else:
        with closing(sqlite3.connect(copy)) as target:
            store._db.backup(target)
    assert store.epoch == epoch
    save(store, record("b"))
    store.close()
    inode = path.stat().st_ino
    shutil.copyfile(copy, path)
    assert path.stat().st_ino == inode
    with closing(SqliteStore(path)) as store:
        assert store.epoch != epoch
        # Versions that watchers have seen are given to other changes from here on.
        save(store, record("c"))
        assert store.reach("t").newest == 2
        again = store.epoch
    assert epoch_of(path) == again


def test_a_directory_that_was_put_back_as_a_whole_begins_an_epoch_of_its_own(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        epoch = store.epoch
        save(store, record("a"))
    copies = {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    with closing(SqliteStore(path)) as store:
        save(store, record("b"))
    # It was copied yesterday.
    for each, content in copies.items():
        if each.suffix == ".epoch":
            noted = orjson.loads(content)
            noted["written_at"] -= 24 * 3600 * 10**9
            content = orjson.dumps(noted).ljust(len(content))
        each.write_bytes(content)
    assert epoch_of(path) != epoch


def test_a_snapshot_of_the_file_system_that_is_put_back_begins_an_epoch_of_its_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's times, inodes and the note are all as they were: only time has passed."""
    epoch = epoch_of(path)
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(f"{Witness.__module__}.time.time_ns", lambda: later)
    assert epoch_of(path) != epoch


def test_a_stop_after_a_quiet_day_costs_no_epoch(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(path)
    with monkeypatch.context() as patched:
        patched.setattr(Witness, "note", noted_a_day_ago(Witness.note))
        save(store, record("a"))
    store.close()
    assert epoch_of(path) == store.epoch


def noted_a_day_ago(note: Callable[[Witness, str, int], None]) -> Callable[..., None]:
    def noted(witness: Witness, epoch: str, changes: int) -> None:
        now = time.time_ns() - 24 * 3600 * 10**9
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(f"{Witness.__module__}.time.time_ns", lambda: now)
            note(witness, epoch, changes)

    return noted


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"epoch": 5}', b"\xff" * 300])
def test_a_note_that_says_nothing_makes_the_epoch_new_once(path: Path, content: bytes) -> None:
    epoch = epoch_of(path)
    assert epoch_of(path) == epoch
    path.with_suffix(".epoch").write_bytes(content)
    fresh = epoch_of(path)
    assert fresh != epoch
    assert epoch_of(path) == fresh


def test_a_kill_between_a_commit_and_its_note_costs_no_epoch(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore(path)) as store:
        epoch = store.epoch
        save(store, record("a"))
        with monkeypatch.context() as patched:
            patched.setattr(Witness, "note", lambda *_: None)
            save(store, record("b"))
    assert epoch_of(path) == epoch


def test_what_a_transaction_takes_back_is_not_noted(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        epoch = store.epoch
        save(store, record("a"))
        with suppress(RuntimeError), store.transaction():
            store.save_jobs([record("b")])
            raise RuntimeError
        assert store.reach("t").newest == 1
        save(store, record("c"))
    assert epoch_of(path) == epoch


async def test_jobs_of_before_the_record_are_in_it(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    before = STEPS[: STEPS.index(store_steps_changes())]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        bring_up(db, path, before)
        for job_id, tenant_id, updated_at in (("a", "t", 9), ("b", "t", 5), ("c", "other", 7)):
            db.execute(
                "INSERT INTO jobs VALUES (?, ?, 'u', 'n', 'training', 10, 5, 'default', 1, 1, ?,"
                " 0, 0, 0, ?, x'', NULL, '{}')",
                (job_id, tenant_id, updated_at, updated_at),
            )
    with closing(SqliteStore(path)) as store:
        reader = ChangeReader(store)
        assert told(await reader.page("t", 0)) == [(1, "b"), (2, "a")]
        assert told(await reader.page("other", 0)) == [(1, "c")]
        reader.close()
        assert store.reach("t").newest == 2


def store_steps_changes() -> object:
    return next(step for step in STEPS if step.__name__ == "record_changes")


async def test_a_row_that_cannot_be_read_ends_no_stream(
    store: SqliteStore, reader: ChangeReader
) -> None:
    save(store, record("a"), record("b"))
    for state in ("{}", "[]", '{"message": 5, "progress": null}'):
        store._db.execute("UPDATE jobs SET state = ? WHERE job_id = 'a'", (state,))
        page = await reader.page("t", 0)
        assert told(page) == [(1, "a"), (2, "b")]
        assert page.changes[0].job.name == "name of a"


async def test_an_unreadable_job_that_is_ended_is_a_change(
    store: SqliteStore, reader: ChangeReader
) -> None:
    save(store, record("a"), record("b"))
    store._db.execute("UPDATE jobs SET state = '{}' WHERE job_id = 'a'")
    store.fail_unreadable("no", 5_000_000)
    [change] = (await reader.page("t", 2)).changes
    assert (change.job.job_id, change.job.status) == ("a", JobStatus.JOB_STATUS_FAILED)


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_resumes_anywhere_knows_what_is_there(
    store: SqliteStore, reader: ChangeReader, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Watchers that read a page now and then, from wherever they are, against the jobs table."""
    chance = random.Random(seed)
    monkeypatch.setattr(reader_module, "PAGE_CHANGES", 4)
    jobs: dict[str, JobRecord] = {}
    watchers: list[tuple[dict[str, int], int]] = [({}, 0) for _ in range(6)]
    for n in range(400):
        tenant = chance.choice("tt-")
        if tenant == "-" or not jobs or chance.random() < 0.2:
            job = record(f"j{n}", "other" if tenant == "-" else "t")
            save(store, job)
            if tenant != "-":
                jobs[job.job_id] = job
        elif chance.random() < 0.2:
            delete(store, jobs.pop(chance.choice(sorted(jobs))), now=n + 1)
        else:
            job = jobs[chance.choice(sorted(jobs))]
            jobs[job.job_id] = replace(job, revision=job.revision + 1)
            save(store, jobs[job.job_id])
        at = chance.randrange(len(watchers))
        watchers[at] = await read_page(reader, *watchers[at])
    for known, version in watchers:
        at_end = False
        while not at_end:
            before = version
            known, version = await read_page(reader, known, version)
            at_end = version == before
        assert known == {job_id: job.revision for job_id, job in jobs.items()}
        assert version == store.reach("t").newest


async def read_page(
    reader: ChangeReader, known: dict[str, int], version: int
) -> tuple[dict[str, int], int]:
    page = await reader.page("t", version)
    known = dict(known)
    for change in page.changes:
        if change.deleted_job_id:
            known.pop(change.deleted_job_id, None)
        else:
            known[change.job.job_id] = change.job.revision
    return known, page.last
