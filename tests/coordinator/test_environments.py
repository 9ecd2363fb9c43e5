"""Which environments of packages can be used, which go, and what a crash leaves."""

import json
import threading
from pathlib import Path

import pytest

from app.coordinator.packages import environments as module
from app.coordinator.packages.entries import MAX_AGE, Environment
from app.coordinator.packages.environments import Environments
from app.files.copying import Abandoned

MIB = 1024**2


def opened(path: Path, *, limit: int = 10 * MIB, running: tuple[str, ...] = ()) -> Environments:
    environments = Environments(path, limit_bytes=limit)
    environments.open(running=running)
    return environments


def made(
    environments: Environments,
    key: str,
    job_id: str = "job",
    *,
    size: int = MIB,
    pinned: bool = False,
    now: int = 1,
) -> Environment:
    path = environments.begin()
    (path / "env/file").write_text("content")
    environments.make_room(size)
    return environments.finish(
        path, tenant_id="t", key=key, pinned=pinned, size_bytes=size, job_id=job_id, now=now
    )


def names(path: Path) -> set[str]:
    return {each.name for each in (path / "entries").iterdir()}


def test_what_was_made_of_the_same_is_used_again(tmp_path: Path) -> None:
    environments = opened(tmp_path)
    entry = made(environments, "a")

    assert environments.take("a", "other", 2) is entry
    assert environments.take("b", "other", 2) is None
    assert environments.of_job("other") is entry
    assert entry.jobs == {"job", "other"}
    assert not (entry.path / "tmp").exists()


def test_what_is_not_pinned_is_used_for_seven_days(tmp_path: Path) -> None:
    environments = opened(tmp_path)
    loose = made(environments, "loose", now=1)
    pinned = made(environments, "pinned", pinned=True, now=1)

    assert environments.take("loose", "j", MAX_AGE) is loose
    assert environments.take("loose", "j", MAX_AGE + 1) is None
    assert environments.take("pinned", "j", 100 * MAX_AGE) is pinned
    # Whoever has the old one keeps it; the next one is another.
    newer = made(environments, "loose", "later", now=MAX_AGE + 1)
    assert environments.take("loose", "j", MAX_AGE + 2) is newer
    assert loose.path.is_dir()


def test_the_least_recently_used_goes_and_never_what_is_in_use(tmp_path: Path) -> None:
    environments = opened(tmp_path, limit=3 * MIB)
    first, second, third = (
        made(environments, key, f"job-{key}", now=at) for at, key in enumerate("abc", 1)
    )
    for key in "bc":
        environments.release(f"job-{key}")
    environments.take("b", "again", 9)
    environments.release("again")

    fourth = made(environments, "d", "job-d", now=10)

    assert names(tmp_path) == {each.path.name for each in (first, second, fourth)}
    assert environments.take("c", "j", 11) is None
    assert not third.path.exists()
    # There is nothing else to remove: it is over its limit until a job ends.
    environments.take("b", "job-b", 11)
    made(environments, "e", "job-e", now=12)
    assert len(names(tmp_path)) == 4
    assert environments.size_bytes == 4 * MIB


def test_a_cache_goes_like_an_environment_and_not_while_it_is_used(tmp_path: Path) -> None:
    environments = opened(tmp_path, limit=2 * MIB)
    with environments.cache("t", 1, most=MIB) as cache:
        (cache / "wheel").write_bytes(b"x" * MIB)
        made(environments, "a", size=2 * MIB, now=2)
        assert (cache / "wheel").exists()
    assert environments.size_bytes >= 3 * MIB
    environments.make_room(0)

    assert not cache.exists()
    with environments.cache("t", 3, most=MIB) as cache:
        assert not list(cache.iterdir())


def test_a_cache_that_is_taken_while_its_former_self_is_removed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = opened(tmp_path, limit=MIB)
    with environments.cache("t", 1, most=MIB) as cache:
        (cache / "old").write_bytes(b"x" * 2 * MIB)
    remove, removed = module._remove, 0

    def taken_meanwhile(path: Path) -> None:
        nonlocal removed
        removed += 1
        with environments.cache("t", 2, most=MIB) as cache:
            assert not (cache / "old").exists()
            (cache / "new").touch()
            remove(path)
            assert (cache / "new").exists()

    monkeypatch.setattr(module, "_remove", taken_meanwhile)
    environments.make_room(0)

    assert removed == 1
    assert not list((tmp_path / "removed").iterdir())


def test_a_removal_of_a_cache_that_was_cut_off_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = opened(tmp_path, limit=MIB)
    with environments.cache("t", 1, most=MIB) as cache:
        (cache / "old").write_bytes(b"x" * 2 * MIB)
    with monkeypatch.context() as cut_off:
        cut_off.setattr(module, "_remove", lambda path: None)
        environments.make_room(0)
    assert list(tmp_path.rglob("old"))

    assert opened(tmp_path).size_bytes == 0
    assert not list(tmp_path.rglob("old"))


def test_a_cache_that_is_too_large_begins_anew(tmp_path: Path) -> None:
    environments = opened(tmp_path)
    with environments.cache("t", 1, most=MIB) as cache:
        (cache / "wheel").write_bytes(b"x" * 2 * MIB)
    with environments.cache("t", 2, most=4 * MIB) as cache:
        assert (cache / "wheel").exists()
    with environments.cache("t", 3, most=MIB) as cache:
        assert not (cache / "wheel").exists()


def test_a_start_takes_up_what_is_finished_and_nothing_else(tmp_path: Path) -> None:
    environments = opened(tmp_path)
    kept = made(environments, "kept", "runs", pinned=True, now=5)
    environments.take("kept", "ended", 6)
    unfinished = environments.begin()
    (unfinished / "env/file").write_text("half")
    damaged = made(environments, "damaged")
    (damaged.path / "environment.json").write_text("{")
    strange = tmp_path / "entries/strange"
    strange.mkdir()
    with environments.cache("t", 7, most=MIB):
        pass
    (tmp_path / "caches/unfinished/uv").mkdir(parents=True)

    again = opened(tmp_path, running=("runs",))

    assert names(tmp_path) == {kept.path.name}
    found = again.take("kept", "j", 8)
    assert found is not None
    assert found.path == kept.path
    assert found.jobs == {"runs", "j"}
    assert {each.name for each in (kept.path / "jobs").iterdir()} == {"runs", "j"}
    assert [each.name for each in (tmp_path / "caches").iterdir()] != ["unfinished"]


def test_what_was_being_removed_is_no_environment_after_a_crash(tmp_path: Path) -> None:
    environments = opened(tmp_path)
    entry = made(environments, "a")
    environments.release("job")
    about = json.loads((entry.path / "environment.json").read_text())
    assert about["key"] == "a"
    # Its marker goes first.
    (entry.path / "environment.json").unlink()

    assert opened(tmp_path).take("a", "j", 2) is None
    assert names(tmp_path) == set()


def test_one_waits_for_the_other_and_can_be_called_off(tmp_path: Path) -> None:
    environments = opened(tmp_path)
    told: list[str] = []
    abandoned = threading.Event()

    def call_off() -> None:
        told.append("waits")
        abandoned.set()

    with (
        environments.turn("t", threading.Event(), waits=lambda: told.append("first waits")),
        pytest.raises(Abandoned),
        environments.turn("t", abandoned, waits=call_off),
    ):
        raise AssertionError("it had its turn while another one had it")

    assert told == ["waits"]
    with environments.turn("t", abandoned, waits=lambda: told.append("again")):
        assert told == ["waits"]
