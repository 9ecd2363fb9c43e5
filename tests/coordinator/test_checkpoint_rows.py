"""Checkpoints in the store, and their pages."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from app.coordinator.errors import InvalidArgument
from app.coordinator.jobs.model import Checkpoint
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.steps.checkpoints import move_checkpoints_apart
from app.coordinator.jobs.steps.store_steps import STEPS, bring_up
from app.coordinator.storage.page_tokens import make_token, read_token
from tests.coordinator.test_store import record


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint(f"step-{number}", number, 10, 1000, sequence=number)


def store_with(path: Path, count: int) -> SqliteStore:
    store = SqliteStore(path / "db")
    job = replace(record(), checkpoints=tuple(checkpoint(at) for at in range(1, count + 1)))
    with store.transaction():
        store.save_jobs([job])
        store.save_checkpoints(None, job)
    return store


def test_a_job_that_has_ended_is_told_with_its_newest_100(tmp_path: Path) -> None:
    store = store_with(tmp_path, 250)
    job = store.job("t", "j")
    assert job is not None
    assert [each.sequence for each in job.checkpoints] == list(range(151, 251))
    assert job.checkpoint_count == 250
    (unfinished,) = store.unfinished()
    assert len(unfinished.checkpoints) == 250


def test_changes_are_stored(tmp_path: Path) -> None:
    store = store_with(tmp_path, 3)
    (before,) = store.unfinished()
    after = replace(
        before,
        checkpoints=(before.checkpoints[2], replace(checkpoint(4), checkpoint_id="step-1")),
    )
    with store.transaction():
        store.save_checkpoints(before, after)
    (stored,) = store.unfinished()
    assert stored.checkpoints == after.checkpoints
    assert store.checkpoint("j", "step-1") == after.checkpoints[1]
    assert store.checkpoint("j", "step-2") is None


def test_pages_have_all_of_them_the_newest_first(tmp_path: Path) -> None:
    store = store_with(tmp_path, 250)
    token, found = "", []
    while True:
        page = store.list_checkpoints("j", page_size=100, page_token=token)
        found += [each.sequence for each in page.checkpoints]
        assert page.total_count == 250
        if not (token := page.next_page_token):
            break
    assert found == list(range(250, 0, -1))
    with pytest.raises(InvalidArgument):
        store.list_checkpoints("other", page_size=1, page_token=make_token(["checkpoints", "j"], 3))


@pytest.mark.parametrize("place", [2**63, 2**64 - 1, 1e30, True, None, [1], {"a": 1}, "1"])
def test_a_token_with_anything_but_an_integer_of_64_bits(place: object) -> None:
    token = make_token(["list"], place)  # type: ignore[arg-type]  # forged
    with pytest.raises(InvalidArgument):
        read_token(token, ["list"], int)


@pytest.mark.parametrize("token", ["x", "%%%%", "\N{SNOWMAN}", "A" * 100_000, "MQ", "e30", "W10"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(InvalidArgument):
        read_token(token, ["list"], int)


def test_checkpoints_of_an_earlier_store_move_to_their_table(tmp_path: Path) -> None:
    path = tmp_path / "db"
    db = sqlite3.connect(path, isolation_level=None)
    db.row_factory = sqlite3.Row
    before = STEPS[: STEPS.index(move_checkpoints_apart)]
    bring_up(db, path, before)
    values = [*_row()]
    db.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * len(values))})", values)
    db.close()
    store = SqliteStore(path)
    (job,) = store.unfinished()
    assert [each.checkpoint_id for each in job.checkpoints] == [
        "step-9223372036854775808",
        "step-30",
        "step-20",
    ]
    assert [each.step for each in job.checkpoints] == [0, 30, 20]
    assert [each.sequence for each in job.checkpoints] == [1, 2, 3]
    assert job.checkpoint_count == 3
    assert (job.progress.total_steps, job.progress.epoch) == (2**53 - 1, 0.0)


def _row() -> tuple[object, ...]:
    """A row as the coordinator of 349b57f wrote it."""
    from app.coordinator.jobs.rows import values_of

    *values, state = values_of(record())
    changed = orjson.loads(state)
    changed["checkpoints"] = [
        {"checkpoint_id": name, "step": step, "size_bytes": size, "created_at": created}
        for name, step, size, created in (
            ("step-20", 20, 1, 300),
            ("step-30", 30, 2**64 - 1, 200),
            ("a\nb", 40, 1, 400),
            ("step-9223372036854775808", 2**63, 1, -5),
        )
    ]
    changed["progress"] = {"step": 2**63, "total_steps": 2**64 - 1, "epoch": None, "loss": None}
    return (*values, orjson.dumps(changed).decode())
