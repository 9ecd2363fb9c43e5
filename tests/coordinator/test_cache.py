"""The data-set cache: bounded, least recently used first out, whole after a crash."""

import errno
import os
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.coordinator.data.cache import DataCache
from app.coordinator.data.drive import BadUrl, Drive, DriveFileSystem
from app.coordinator.execution.inputs import Inputs
from app.coordinator.identity.access import Access, Grant
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.files.copying import Abandoned
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest


class Bench:
    """A cache, and a drive that it is filled from."""

    def __init__(self, root: Path, *, limit: int = 1000) -> None:
        self.root = root
        self.drive = Drive(root / "drive")
        self.now = 0
        self.limit = limit
        self.restart()

    def restart(self, *running: str) -> None:
        self.cache = DataCache(self.root / "cache", limit_bytes=self.limit)
        self.cache.open(running=running)

    def write(self, name: str, content: bytes, tenant: str = "t") -> str:
        path = self.root / "drive" / tenant / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"scaidrive://{tenant}/{name}"

    def files(self, tenant: str = "t") -> DriveFileSystem:
        return self.drive.filesystem(Access(tenant))

    def fetch(self, url: str, job: str, *, tenant: str = "t", node: str = "n") -> Path | None:
        self.now += 1
        return self.cache.fetch(
            self.files(tenant),
            url,
            tenant_id=tenant,
            job_id=job,
            node_ids=[node],
            abandoned=threading.Event(),
            now=self.now,
        )

    def cached(self, tenant: str = "t", node: str = "") -> list[str]:
        entries = self.cache.entries(tenant, node_id=node)
        return [entry.url.rpartition("/")[2] for entry in entries]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_is_fetched_is_read_from_the_cache(bench: Bench) -> None:
    url = bench.write("a.jsonl", b"abc")
    path = bench.fetch(url, "j1")
    assert path is not None
    assert path.read_bytes() == b"abc"
    assert path.is_relative_to(bench.root / "cache")
    assert bench.fetch(url, "j2") == path
    (entry,) = bench.cache.entries("t")
    assert (entry.size_bytes, entry.cached_at, entry.last_accessed) == (3, 1, 2)
    assert entry.jobs == {"j1", "j2"}
    bench.cache.release("j1")
    assert entry.jobs == {"j2"}


def test_what_changed_is_another_entry(bench: Bench) -> None:
    url = bench.write("a.jsonl", b"old")
    old = bench.fetch(url, "j1")
    bench.write("a.jsonl", b"newer")
    new = bench.fetch(url, "j2")
    assert old is not None
    assert new is not None
    assert (old.read_bytes(), new.read_bytes()) == (b"old", b"newer")


def test_a_directory_is_fetched_whole(bench: Bench) -> None:
    bench.write("shards/a.csv", b"1")
    url = bench.write("shards/deep/b.csv", b"22").removesuffix("/deep/b.csv")
    path = bench.fetch(url, "j")
    assert path is not None
    assert sorted(str(file.relative_to(path)) for file in path.rglob("*.csv")) == [
        "a.csv",
        "deep/b.csv",
    ]
    assert bench.cache.entries("t")[0].size_bytes == 3


def test_the_least_recently_used_goes_first_and_never_what_a_job_uses(bench: Bench) -> None:
    urls = {name: bench.write(name, b"x" * 400) for name in "abcde"}
    for name in "ab":
        bench.fetch(urls[name], f"j-{name}")
        bench.cache.release(f"j-{name}")
    bench.fetch(urls["a"], "again")
    bench.cache.release("again")
    assert bench.fetch(urls["c"], "j-c") is not None
    assert bench.cached() == ["c", "a"]
    assert bench.fetch(urls["d"], "j-d") is not None
    assert bench.cached() == ["d", "c"]
    # Both are in use: there is no room, and nothing goes.
    assert bench.fetch(urls["e"], "j-e") is None
    assert bench.cached() == ["d", "c"]
    bench.cache.release("j-c")
    assert bench.fetch(urls["e"], "j-e") is not None
    assert bench.cached() == ["e", "d"]
    assert bench.fetch(bench.write("big", b"x" * 1001), "j") is None
    assert len(list((bench.root / "cache" / "entries").iterdir())) == 2


def test_no_tenant_meets_what_was_fetched_for_another(bench: Bench) -> None:
    mine = bench.fetch(bench.write("same", b"abc"), "j1")
    theirs = bench.fetch(bench.write("same", b"abc", "u"), "j2", tenant="u")
    assert mine != theirs
    assert (bench.cached("t"), bench.cached("u"), bench.cached("v")) == (["same"], ["same"], [])
    with pytest.raises(BadUrl, match="not in your tenant's folder"):
        bench.fetch("scaidrive://u/same", "j3")


def test_entries_by_node(bench: Bench) -> None:
    bench.fetch(bench.write("a", b"1"), "j1", node="n1")
    url = bench.write("b", b"2")
    bench.fetch(url, "j2", node="n1")
    bench.fetch(url, "j3", node="n2")
    bench.restart("j1", "j2", "j3")
    assert (bench.cached(node="n1"), bench.cached(node="n2")) == (["b", "a"], ["b"])


def test_it_survives_a_restart_and_keeps_the_order(bench: Bench) -> None:
    urls = {name: bench.write(name, b"x" * 400) for name in "abc"}
    bench.fetch(urls["a"], "runs")
    bench.fetch(urls["b"], "ended")
    bench.restart("runs")
    assert {entry.url[-1]: entry.jobs for entry in bench.cache.entries("t")} == {
        "a": {"runs"},
        "b": set(),
    }
    bench.now = 10
    assert bench.fetch(urls["c"], "new") is not None
    assert bench.cached() == ["c", "a"]
    # A smaller limit takes effect at the next start.
    bench.limit = 500
    bench.restart("runs")
    assert bench.cached() == ["a"]


def test_what_a_crash_left_half_made_is_cleared(bench: Bench) -> None:
    for name in ("whole", "cut", "unnamed"):
        bench.fetch(bench.write(name, b"x" * 100), "j")
    paths = {entry.url.rpartition("/")[2]: entry.path for entry in bench.cache.entries("t")}
    data = paths["cut"] / "data" / "cut"
    data.chmod(0o600)
    os.truncate(data, 50)
    (paths["unnamed"] / "entry.json").write_bytes(b"{")
    shutil.copytree(paths["whole"], bench.root / "cache" / "incoming" / "0123")
    bench.restart()
    assert bench.cached() == ["whole"]
    assert [path.name for path in (bench.root / "cache" / "entries").iterdir()] == [
        paths["whole"].name
    ]
    assert not list((bench.root / "cache" / "incoming").iterdir())


def test_a_fetch_that_fails_leaves_nothing(bench: Bench) -> None:
    url = bench.write("a", b"x" * 400)
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(Abandoned):
        bench.cache.fetch(
            bench.files(), url, tenant_id="t", job_id="j", node_ids=[], abandoned=given_up, now=1
        )
    assert not list((bench.root / "cache" / "incoming").iterdir())
    # Nor is any room kept for it.
    for name in ("b", "c"):
        assert bench.fetch(bench.write(name, b"x" * 450), name) is not None


def test_many_jobs_fetch_the_same_thing_once(bench: Bench) -> None:
    url = bench.write("a", os.urandom(900))
    found: list[Path | None] = []
    threads = [
        threading.Thread(target=lambda job=job: found.append(bench.fetch(url, job)))
        for job in map(str, range(8))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert None not in found
    assert len(bench.cache.entries("t")[0].jobs) == 8


def test_what_a_job_was_given_stays_while_others_need_the_room(bench: Bench) -> None:
    """Threads fetch more than fits, and read what they were given before they let go of it."""
    contents = [os.urandom(300) for _ in range(8)]
    expected = {bench.write(str(at), content): content for at, content in enumerate(contents)}
    wrong: list[str] = []
    cached = 0

    def work(worker: int) -> None:
        nonlocal cached
        rng = random.Random(worker)
        for turn in range(60):
            url = rng.choice(list(expected))
            job = f"{worker}-{turn}"
            path = bench.fetch(url, job)
            if path is not None:
                cached += 1
                if path.read_bytes() != expected[url]:
                    wrong.append(url)
                bench.cache.release(job)

    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(work, worker) for worker in range(6)]:
            done.result(timeout=60)
    assert not wrong
    assert cached > 60
    entries = bench.cache.entries("t")
    assert sum(entry.size_bytes for entry in entries) <= bench.limit
    assert {entry.path for entry in entries} == set((bench.root / "cache" / "entries").iterdir())
    assert not list((bench.root / "cache" / "incoming").iterdir())


def test_a_disk_without_room_for_copies_lets_the_job_read_the_very_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("app.coordinator.data.cache.copy_content", full)
    url = bench.write("a", b"1")
    job = JobRecord(
        job_id="j",
        tenant_id="t",
        user_id="u",
        name="n",
        submission=SubmitJobRequest(),
        resource_request=ResourceRequest(),
        created_at=1,
        updated_at=1,
        grant=Grant.give(tenant_id="t", user_id="u", job_id="j", urls=[url]),
    )
    inputs = Inputs(drive=bench.drive, cache=bench.cache, clock=lambda: 1)
    read = inputs.fetch(job, url, threading.Event())
    assert read.samefile(bench.root / "drive" / "t" / "a")
    inputs.release("j")
    assert not read.exists()
    with pytest.raises(BadUrl, match="no grant"):
        inputs.fetch(replace(job, grant=None), url, threading.Event())
