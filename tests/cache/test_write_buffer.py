"""The buffer: bounded, and whatever the order of arrival, the newest of a job is kept."""

from itertools import permutations

from app.cache.write_buffer import (
    STATUSES,
    Buffer,
    Change,
    Copy,
    Key,
    PendingUpdate,
    shown,
    status_name,
    status_number,
    time_of,
)
from generated.mindcoordinator.v1.jobs_pb2 import JobStatus
from tests.cache.jobs import at, job

KEY = Key("acme", "job-1")


def copy(revision: int, updated: float = 0, *, seen: float = 0) -> PendingUpdate:
    return PendingUpdate(copy=Copy.of(job(revision=revision, updated=updated), seen=seen))


def change(minute: float, status: str) -> PendingUpdate:
    return PendingUpdate(change=Change(at(minute), status_number(status), ""))


def test_statuses_are_those_of_the_contract() -> None:
    names = [name.removeprefix("JOB_STATUS_") for name in JobStatus.keys()]  # noqa: SIM118 - no dict
    assert list(STATUSES) == names
    assert [status_number(name) for name in names] == list(JobStatus.values())
    assert [status_name(number) for number in JobStatus.values()] == names


def test_a_status_of_a_newer_contract_stands_for_itself() -> None:
    assert status_number(14) == status_number("14") == status_name(14) == 14
    assert status_number("SLEEPING") == 0


def test_times_are_read_and_written_as_the_api_has_them() -> None:
    for text in ("2026-05-01T12:00:00Z", "2026-05-01T12:00:00.123456Z"):
        time = time_of(text)
        assert time is not None
        assert shown(time) == text
    assert time_of("2026-05-01T12:00:00.123456789Z") == time_of("2026-05-01T12:00:00.123456Z")
    assert time_of(None) is None


def test_the_newest_copy_wins_in_any_order() -> None:
    # Newest last: by revision, then by the coordinator's time, then by ours.
    copies = [copy(1, 9, seen=9), copy(2, 3, seen=7), copy(2, 4, seen=5), copy(2, 4, seen=6)]
    for arriving in permutations(copies):
        buffer = Buffer(limit=10)
        for each in arriving:
            assert buffer.put(KEY, each) == 0
        [(key, kept)] = buffer.take(10).items()
        assert (key, kept.copy) == (KEY, copies[-1].copy)


def test_a_copy_that_waits_is_known_by_its_job() -> None:
    buffer, waiting = Buffer(limit=10), copy(1, seen=5)
    assert waiting.copy is not None
    first = waiting.copy.job
    assert not buffer.holds(KEY, first, since=0)
    buffer.put(KEY, waiting)
    assert buffer.holds(KEY, first, since=5)
    assert not buffer.holds(KEY, first, since=6)
    assert not buffer.holds(KEY, dict(first), since=5)
    assert not buffer.holds(Key("other", "job-1"), first, since=5)
    buffer.put(KEY, PendingUpdate(deleted=True))
    assert not buffer.holds(KEY, first, since=5)


def test_the_newest_change_wins_in_any_order_and_destroys_no_copy() -> None:
    # At the same time: what comes later in a job's life.
    changes = [change(1, "TRAINING"), change(2, "EXPORTING"), change(2, "COMPLETED")]
    whole = copy(5)
    for arriving in permutations([whole, *changes]):
        buffer = Buffer(limit=10)
        for each in arriving:
            buffer.put(KEY, each)
        [kept] = buffer.take(10).values()
        assert kept == PendingUpdate(whole.copy, changes[-1].change)


def test_it_holds_the_jobs_heard_of_last_and_says_how_many_it_gave_up() -> None:
    buffer = Buffer(limit=2)
    keys = [Key("acme", name) for name in "abc"]
    assert [buffer.put(key, copy(1)) for key in keys[:2]] == [0, 0]
    assert buffer.put(keys[0], copy(2)) == 0
    assert buffer.put(keys[2], copy(1)) == 1
    assert list(buffer.take(10)) == [keys[0], keys[2]]
    assert len(buffer) == 0


def test_tenants_do_not_share_a_job_id() -> None:
    buffer = Buffer(limit=2)
    buffer.put(Key("acme", "x"), copy(1))
    buffer.put(Key("other", "x"), copy(2))
    assert [each.copy and each.copy.revision for each in buffer.take(2).values()] == [1, 2]


def test_what_is_put_back_goes_first_and_replaces_nothing_newer() -> None:
    buffer = Buffer(limit=10)
    for name in "abc":
        buffer.put(Key("acme", name), copy(1))
    taken = buffer.take(2)
    buffer.put(Key("acme", "b"), copy(2))
    buffer.put(Key("acme", "d"), copy(1))
    assert buffer.put_back(taken) == 0
    again = buffer.take(10)
    assert [key.job_id for key in again] == ["a", "b", "c", "d"]
    assert [each.copy and each.copy.revision for each in again.values()] == [1, 2, 1, 1]


def test_what_is_put_back_into_a_full_buffer_is_what_goes() -> None:
    buffer = Buffer(limit=2)
    buffer.put(Key("acme", "old"), copy(1))
    taken = buffer.take(1)
    buffer.put(Key("acme", "new"), copy(1))
    buffer.put(Key("acme", "newer"), copy(1))
    assert buffer.put_back(taken) == 1
    assert [key.job_id for key in buffer.take(2)] == ["new", "newer"]
