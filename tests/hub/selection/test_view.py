"""A selection over a record: what comes, what leaves, who is followed."""

import json

import pytest

from app.hub.selection.record import TenantRecord
from app.hub.selection.selection import RECENT, Selection
from app.hub.selection.states import StatesBatch
from app.hub.selection.view import SelectionView
from tests.hub.selection.tenant import change, gone, whole

NOW = 1_000_000.0


class World:
    """A record and one view of it."""

    def __init__(
        self, selection: Selection, *, follow: int = 64, most: int = 1000, tell: int = 100
    ) -> None:
        self.record = TenantRecord(most=most)
        self.record.take(whole(change(1, "a"), change(2, "b", "QUEUED"), change(3, "c")))
        self.view = SelectionView(selection, record=self.record, follow=follow, most=tell, now=NOW)

    def take(self, *changes: object, now: float = NOW) -> list[bytes]:
        """The events that a batch makes."""
        before = self.view.number
        self.view.take(self.record.take(StatesBatch(changes=[*changes])), now)  # type: ignore[list-item]
        self.view.validate()
        return [each.event for each in self.view.changes_since(before)]


def names(events: list[bytes]) -> list[str]:
    return [event.split(b"\n")[0].removeprefix(b"event: ").decode() for event in events]


def test_changes_of_what_matches_are_events_and_others_are_not() -> None:
    world = World(Selection.of(statuses=["TRAINING"]))
    assert set(world.view.matching) == {"a", "c"}
    assert names(world.take(change(4, "b", "PAUSED"))) == []
    assert names(world.take(change(5, "b", "TRAINING"), change(6, "a", "PAUSED"))) == [
        "job",
        "job_gone",
    ]
    assert names(world.take(gone(7, "c"), gone(8, "a"))) == ["job_gone"]
    assert set(world.view.matching) == {"b"}


def test_between_two_looks_only_the_newest_event_of_a_job_is_kept() -> None:
    world = World(Selection.of(statuses=["TRAINING"]))
    before = world.view.number
    world.take(change(4, "a", "PAUSED"))
    world.take(change(5, "a", "TRAINING"))
    changes = world.view.changes_since(before)
    assert names([each.event for each in changes]) == ["job"]
    assert changes[0].version == 5


def test_jobs_that_ended_leave_when_their_hour_is_over() -> None:
    world = World(Selection.of())
    world.take(change(4, "a", "COMPLETED", ended_at=NOW))
    assert "a" in world.view.matching
    before = world.view.number
    assert not world.view.look(NOW + RECENT - 1)
    assert world.view.look(NOW + RECENT)
    assert names([each.event for each in world.view.changes_since(before)]) == ["job_gone"]
    # Whoever was away learns of it as well, though the job did not change.
    assert names(world.view.changes_of_record(4, NOW, NOW + RECENT)) == ["job_gone"]
    assert world.view.changes_of_record(4, NOW + RECENT, NOW + RECENT + 5) == []


def test_what_has_changed_for_who_was_away_is_told_by_what_matches_now() -> None:
    world = World(Selection.of(statuses=["TRAINING"]))
    world.take(change(4, "a", "PAUSED"), gone(5, "c"), change(6, "d"), change(7, "b", "PAUSED"))
    events = world.view.changes_of_record(3, NOW, NOW)
    assert names(events) == ["job_gone", "job_gone", "job", "job_gone"]
    assert [b"deleted" in event for event in events] == [False, True, False, False]


def test_the_newest_are_followed() -> None:
    world = World(Selection.of(), follow=2)
    assert list(world.view.followed) == ["c", "b"]
    assert world.view.over_limit
    world.take(change(4, "d"))
    assert list(world.view.followed) == ["d", "c"]
    world.take(gone(5, "d"), gone(6, "c"))
    assert list(world.view.followed) == ["b", "a"]
    assert not world.view.over_limit


def test_named_jobs_that_are_not_there_are_told() -> None:
    world = World(Selection.of(job_ids=["a", "x"], statuses=["QUEUED"]))
    assert [b"left" in event for event in world.view.missing()] == [True, False]
    assert [b"unknown" in event for event in world.view.missing()] == [False, True]


def test_events_of_jobs_that_left_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SelectionView, "GONE", 100)
    world = World(Selection.of())
    count = SelectionView.GONE + 10
    for number in range(count):
        world.take(change(10 + 2 * number, f"j{number}"), gone(11 + 2 * number, f"j{number}"))
    assert 0 < world.view.dropped < world.view.number
    assert len(world.view.changes_since(world.view.dropped)) <= SelectionView.GONE


def test_jobs_that_the_record_forgets_leave() -> None:
    world = World(Selection.of(ended_within=1e9), most=20)
    told: set[str] = set()
    for number in range(10, 300):
        ended = change(number, f"e{number}", "COMPLETED", ended_at=NOW + number)
        for event in world.take(ended):
            if names([event]) == ["job_gone"]:
                assert b'"left"' in event
                told.add(event.decode())
        assert len(world.view.matching) <= 20
    assert len(told) + len(world.view.matching) == 290 + 3


def test_a_whole_state_tells_what_is_forgotten_apart_from_what_was_deleted() -> None:
    world = World(Selection.of(ended_within=1e9), most=8)
    world.take(*(change(n, f"e{n}", "COMPLETED", ended_at=NOW + n) for n in range(4, 8)))
    before = world.view.number
    # Too many arrive at once, and `c` is not among them.
    ended = [change(n, f"e{n}", "COMPLETED", ended_at=NOW + n) for n in range(4, 20)]
    batch = whole(change(1, "a"), change(2, "b", "QUEUED"), *ended)
    world.view.take(world.record.take(batch), NOW)
    world.view.validate()
    gone = [each.event for each in world.view.changes_since(before) if each.gone]
    assert {event for event in gone if b'"deleted"' in event} == {
        event for event in gone if b'"c"' in event
    }
    assert len([event for event in gone if b'"left"' in event]) == 4
    assert len(gone) == 5


def test_times_to_leave_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SelectionView, "LEAVING", 50)
    world = World(Selection.of(ended_within=1e9), most=20)
    for number in range(10, 1000):
        world.take(change(number, f"e{number}", "COMPLETED", ended_at=NOW + number))
        assert len(world.view._leaving) <= 50 + 2 * 21
    assert world.view.look(NOW + 1e9 + 2000)
    world.view.validate()
    assert set(world.view.matching) == {"a", "b", "c"}


def told(world: World, before: int = 0) -> list[tuple[str, str]]:
    """What has been told since: each event with its job."""
    events = [each.event for each in world.view.changes_since(before)]
    bodies = [json.loads(event.split(b"data: ")[1]) for event in events]
    return [
        (name, body["job_id"] + (f":{body['reason']}" if name == "job_gone" else ""))
        for name, body in zip(names(events), bodies, strict=True)
    ]


def test_beyond_the_limit_the_oldest_goes_and_comes_back_when_there_is_room() -> None:
    world = World(Selection.of(), tell=3)
    assert not world.view.leaves_out
    before = world.view.number
    world.take(change(4, "d"))
    assert told(world, before) == [("job", "d"), ("job_gone", "a:limit")]
    assert (len(world.view.matching), len(world.view.state())) == (4, 3)
    before = world.view.number
    # What was left out is not told of, and cannot be followed.
    world.take(change(5, "a", "PAUSED"))
    assert (told(world, before), list(world.view.followed)) == ([], ["d", "c", "b"])
    world.take(gone(6, "c"))
    assert told(world, before) == [("job_gone", "c:deleted"), ("job", "a")]
    assert not world.view.leaves_out


def test_an_older_job_that_comes_to_match_is_left_out() -> None:
    world = World(Selection.of(statuses=["TRAINING"]), tell=2)
    before = world.view.number
    world.take(change(4, "0", "TRAINING"))
    assert told(world, before) == []
    assert world.view.limit_event().endswith(b'{"matching":3,"states":2,"followed":2}\n\n')


def test_a_named_job_that_is_left_out_is_told_as_such() -> None:
    world = World(Selection.of(job_ids=["a", "b", "c", "x"]), tell=2)
    bodies = [json.loads(event.split(b"data: ")[1]) for event in world.view.missing()]
    assert [(body["job_id"], body["reason"]) for body in bodies] == [
        ("a", "limit"),
        ("x", "unknown"),
    ]


def test_a_job_that_says_it_was_created_at_another_time_changes_its_place() -> None:
    world = World(Selection.of(), tell=2)
    before = world.view.number
    world.take(change(4, "c", created_at=0.0))
    assert told(world, before) == [("job_gone", "c:limit"), ("job", "a")]
