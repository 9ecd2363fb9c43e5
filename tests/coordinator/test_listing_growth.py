"""Pages of jobs in any order: what a page costs is that of the page, and of the count."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.coordinator.database.sqlite import SqliteDatabase
from app.coordinator.jobs.listing import ORDERS, Filters, Order, list_jobs
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.steps.store_steps import STEPS, bring_up
from scripts.bench.listing import fill

FEW, MANY = 200, 5_000
#: Steps of SQLite's machine between two calls of the handler.
EACH = 10


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SqliteDatabase]]:
    """One with few jobs, and one with many."""
    folder = tmp_path_factory.mktemp("stores")
    stores = []
    for jobs in (FEW, MANY):
        fill(folder / f"{jobs}.db", jobs)
        db = SqliteDatabase.open(folder / f"{jobs}.db")
        db.row_factory = sqlite3.Row
        stores.append(db)
    yield stores
    for db in stores:
        db.close()


def steps_of(db: SqliteDatabase, filters: Filters, order: Order, page_token: str) -> int:
    """Steps that a page takes, beyond one for each job that is counted."""
    calls = 0

    def step() -> int:
        nonlocal calls
        calls += 1
        return 0

    db.set_progress_handler(step, EACH)
    list_jobs(db, "t", filters=filters, order=order, page_size=20, page_token=page_token)
    db.set_progress_handler(None, 0)
    return calls * EACH


def token_of(db: SqliteDatabase, order: Order) -> str:
    page = list_jobs(db, "t", filters=Filters(), order=order, page_size=20, page_token="")
    return page.next_page_token


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("column", ORDERS)
def test_every_order_costs_what_the_default_one_costs(
    stores: list[SqliteDatabase], column: str, *, descending: bool
) -> None:
    order = Order(column, descending)
    for db in stores:
        default = steps_of(db, Filters(), Order(), "")
        assert steps_of(db, Filters(), order, "") <= 1.2 * default
        assert steps_of(db, Filters(), order, token_of(db, order)) <= 1.2 * default


@pytest.mark.parametrize("column", ORDERS)
@pytest.mark.parametrize("statuses", [[Status.PAUSED], [Status.FAILED], [Status.COMPLETED]])
def test_jobs_of_rare_and_of_common_statuses_cost_no_more(
    stores: list[SqliteDatabase], column: str, statuses: list[Status]
) -> None:
    _, many = stores
    filters = Filters(statuses=statuses)
    default = steps_of(many, Filters(), Order(), "")
    assert steps_of(many, filters, Order(column, descending=True), "") <= 1.5 * default


def test_a_rare_label_costs_what_is_found(stores: list[SqliteDatabase]) -> None:
    _, many = stores
    rare = steps_of(many, Filters(labels={"team": "team-7"}), Order(), "")
    assert rare <= steps_of(many, Filters(), Order(), "")


def test_a_store_of_the_step_before_gets_its_indexes(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.db"
    before = next(at for at, step in enumerate(STEPS) if step.__name__ == "index_orders")
    with closing(SqliteDatabase.open(path)) as db:
        bring_up(db, path, STEPS[:before])
        bring_up(db, path)
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    assert {"jobs_by_update", "jobs_by_priority", "jobs_by_name"} <= names
