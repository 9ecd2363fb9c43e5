"""The record of a tenant's states: what is known, since when, and how much."""

from app.hub.selection.record import TenantRecord
from app.hub.selection.states import JobChange, NodeState, StatesBatch, StatesStart
from tests.hub.selection.tenant import change, gone, whole


def known(record: TenantRecord) -> list[str]:
    record.validate()
    return [each.job_id for each in record]


def told(changes: list[JobChange]) -> list[tuple[int, str, bool]]:
    return [(each.version, each.job_id, each.state is not None) for each in changes]


def test_nothing_is_there_until_the_whole_state_has_arrived() -> None:
    record = TenantRecord(most=10)
    start = StatesStart("s1", reset=True)
    assert not record.take(StatesBatch(start=start, changes=[change(1, "a")])).reset
    assert not record.complete
    assert known(record) == []
    taken = record.take(StatesBatch(changes=[change(4, "b")], synced=6))
    assert taken.reset
    assert (record.complete, record.version, record.floor, known(record)) == (
        True,
        6,
        6,
        ["a", "b"],
    )


def test_changes_are_known_by_version_and_a_job_by_its_newest() -> None:
    record = TenantRecord(most=10)
    record.take(whole(change(1, "a"), change(2, "b"), change(3, "c")))
    record.take(StatesBatch(changes=[change(4, "a", "PAUSED"), gone(5, "b"), change(6, "d")]))
    assert known(record) == ["c", "a", "d"]
    assert told(record.changes_since(3)) == [(4, "a", True), (5, "b", False), (6, "d", True)]
    assert told(record.changes_since(5)) == [(6, "d", True)]
    record.take(StatesBatch(changes=[change(7, "b")]))
    assert told(record.changes_since(3)) == [(4, "a", True), (6, "d", True), (7, "b", True)]
    record.validate()


def test_a_whole_state_of_the_same_epoch_is_told_as_changes() -> None:
    record = TenantRecord(most=10)
    record.take(whole(change(1, "a"), change(2, "b"), change(3, "c")))
    taken = record.take(whole(change(1, "a"), change(8, "c", "PAUSED"), change(9, "d"), synced=9))
    assert not taken.reset
    assert told([*taken.changes]) == [(8, "c", True), (9, "d", True), (9, "b", False)]
    # What else was deleted meanwhile nobody here knows.
    assert record.floor == 9


def test_a_record_that_went_back_is_another_record() -> None:
    record = TenantRecord(most=10)
    record.take(whole(change(7, "a", "COMPLETED"), change(9, "b")))
    # As after a copy of the coordinator's store was put back under the same epoch.
    assert record.take(whole(change(3, "a", "TRAINING"), change(4, "b"))).reset
    state = record.get("a")
    assert state is not None
    assert (record.version, record.generation, state.status) == (4, 2, "TRAINING")
    record.validate()


def test_another_epoch_is_another_record() -> None:
    record = TenantRecord(most=10)
    record.take(whole(change(7, "a")))
    assert record.take(whole(change(1, "b"), epoch="s2")).reset
    assert (record.epoch, record.version, record.generation) == ("s2", 1, 2)
    assert known(record) == ["b"]


def test_deletions_of_before_are_learned() -> None:
    record = TenantRecord(most=10)
    record.take(whole(change(5, "a"), synced=9))
    assert record.learn_deletions(3, 9, {"x": 4, "y": 7, "a": 8})
    assert record.floor == 3
    assert told(record.changes_since(3)) == [(4, "x", False), (5, "a", True), (7, "y", False)]
    record.validate()


def test_what_is_newer_than_the_record_is_not_learned() -> None:
    record = TenantRecord(most=10)
    record.take(whole(change(5, "a"), synced=9))
    assert record.learn_deletions(3, 12, {"x": 4, "y": 12})
    record.take(StatesBatch(changes=[gone(11, "z"), gone(12, "y")]))
    assert told(record.changes_since(11)) == [(12, "y", False)]
    record.validate()


def test_deletions_are_not_learned_with_a_hole_behind_them_or_beyond_the_bound() -> None:
    record = TenantRecord(most=10)
    record.take(whole(change(5, "a"), synced=99_999))
    assert not record.learn_deletions(3, 99_998, {"x": 4})
    assert record.floor == 99_999
    many = {f"j{number}": number for number in range(10, 11 + TenantRecord.DELETIONS)}
    assert not record.learn_deletions(3, 99_999, many)
    assert record.floor > 3
    record.validate()


def test_of_too_many_jobs_those_that_ended_first_are_forgotten() -> None:
    record = TenantRecord(most=20)
    ended = [change(n, f"e{n}", "COMPLETED", ended_at=float(n)) for n in range(1, 16)]
    record.take(whole(*ended, *(change(n, f"r{n}") for n in range(16, 31))))
    assert len(known(record)) <= 20
    assert record.get("r16") is not None
    assert record.get("e15") is not None
    assert record.get("e1") is None
    assert record.forgotten_until is not None
    assert all(
        each.state.ended_at > record.forgotten_until
        for each in record
        if each.state is not None and each.state.ended_at is not None
    )
    assert not record.crowded
    record.take(StatesBatch(changes=[change(n, f"r{n}") for n in range(31, 60)]))
    assert record.crowded


def test_the_number_of_deletions_is_bounded() -> None:
    record = TenantRecord(most=10)
    record.take(whole())
    count = TenantRecord.DELETIONS + 5
    record.take(StatesBatch(changes=[gone(n, f"j{n}") for n in range(1, count + 1)]))
    assert record.floor == 5
    assert len(record.changes_since(record.floor)) == TenantRecord.DELETIONS
    record.validate()


def test_a_node_that_is_told_again_has_not_changed() -> None:
    record = TenantRecord(most=10)
    record.take(StatesBatch(start=StatesStart("s1", reset=True), nodes=[NodeState("n", b"1")]))
    before = record.cluster_changes
    record.take(StatesBatch(nodes=[NodeState("n", b"1")]))
    assert record.cluster_changes == before
    record.take(StatesBatch(nodes=[NodeState("n", b"2")], queue=b"q"))
    assert record.cluster_changes == before + 2


def test_a_whole_state_is_too_large_before_it_has_arrived() -> None:
    record = TenantRecord(most=20)
    record.take(StatesBatch(start=StatesStart("s1", reset=True)))
    taken = 0
    while not record.crowded and taken < 1000:
        taken += 1
        record.take(StatesBatch(changes=[change(taken, f"r{taken}")]))
    assert 20 < taken <= 26
    # Another beginning is another state.
    record.take(whole(change(1, "a")))
    assert not record.crowded


def test_a_state_that_arrives_is_crowded_by_unfinished_jobs_alone() -> None:
    record = TenantRecord(most=20)
    record.take(StatesBatch(start=StatesStart("s1", reset=True)))
    for number in range(1, 200):
        ended = change(number, f"e{number}", "COMPLETED", ended_at=float(number))
        record.take(StatesBatch(changes=[ended]))
        assert not record.crowded
    record.take(StatesBatch(changes=[change(200, "r")], synced=200))
    assert not record.crowded
    assert record.get("r") is not None
    assert len(known(record)) <= 20


def test_the_newest_change_of_what_was_forgotten_is_known_and_of_one_epoch() -> None:
    record = TenantRecord(most=20)
    record.take(whole(*(change(n, f"r{n}") for n in range(1, 19))))
    record.take(StatesBatch(changes=[change(30, "e1", "COMPLETED", ended_at=1.0)]))
    record.take(StatesBatch(changes=[change(31, "e2", "COMPLETED", ended_at=2.0)]))
    assert record.forgotten_version == 0
    taken = record.take(StatesBatch(changes=[change(32, "r50")]))
    assert set(taken.forgotten) == {"e1", "e2"}
    assert record.forgotten_version == 31
    record.take(whole(change(1, "a"), epoch="s2"))
    assert record.forgotten_version == 0
