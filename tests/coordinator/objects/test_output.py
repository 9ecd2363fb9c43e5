"""What a job has made, as it is fetched to be exported."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("s3fs")

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.execution.bucket.parts import NodeEnd, RunParts
from app.coordinator.execution.bucket.workspace import BucketWorkspace
from app.coordinator.execution.checkpoints import CheckpointFinder
from app.files.directory import Directory
from app.files.walking import Limits
from tests.objects.test_published import make

if TYPE_CHECKING:
    from app.objects.s3 import S3Store

JOB = "local/jobs/job-1"
WANTED = threading.Event()


def test_an_output_whose_record_is_damaged_is_not_told_as_empty(
    store: "S3Store", tmp_path: Path
) -> None:
    store.write("local/jobs/job-1/.kept/.complete/output", b"{")
    workspace = cast(Any, object.__new__(BucketWorkspace))
    workspace._bucket = BucketDrive(tmp_path / "drive", store=store)
    workspace.directory = lambda _: SimpleNamespace(path=tmp_path)
    job = SimpleNamespace(tenant_id="local", job_id="job-1", artefacts_of="")
    with pytest.raises(OSError, match="damaged"):
        workspace._collect(job, threading.Event())


def workspace_of(store: "S3Store", folder: Path) -> BucketWorkspace:
    """One that prepares nothing."""
    needless: dict[str, Any] = dict.fromkeys(
        ("inputs", "models", "projects", "installer", "artefacts")
    )
    bucket = BucketDrive(folder / "drive", store=store)
    return BucketWorkspace(jobs=folder / "jobs", bucket=bucket, limits=Limits(), **needless)


def job_of(*, run: int, nodes: int) -> Any:
    return SimpleNamespace(
        tenant_id="local",
        job_id="job-1",
        run_count=run,
        placement=range(nodes),
        checkpoints=(),
        submission=SimpleNamespace(output_config=SimpleNamespace(max_checkpoints=0)),
    )


def publish(parts: RunParts, folder: Path, name: str, *, node: int) -> None:
    make(folder / str(node) / name, {"a": f"of node {node}"})
    with Directory.open(folder / str(node)) as source:
        parts.publish(source, name, WANTED, node=node, limits=Limits())


def test_what_is_odd_about_the_parts_of_a_run_that_is_over_is_told(
    store: "S3Store", tmp_path: Path
) -> None:
    workspace = workspace_of(store, tmp_path)
    output = RunParts(store, f"{JOB}/.kept/", 1)
    for node in (0, 1):
        publish(output, tmp_path, "output", node=node)
    checkpoints = RunParts(store, f"{JOB}/checkpoints/", 1)
    publish(checkpoints, tmp_path, "step-1", node=0)
    checkpoints.say_ended(1, NodeEnd(True, frozenset()))
    unfinished, differing = workspace.run_over(job_of(run=1, nodes=2))
    assert "'step-1' does not count" in unfinished
    assert "'output' has 'a' from several nodes" in differing


class Reads:
    """A store that notes what is read of it."""

    def __init__(self, store: "S3Store") -> None:
        self._store = store
        self.keys: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, key: str, *, limit: int) -> bytes:
        self.keys.append(key)
        return self._store.read(key, limit=limit)


def test_what_was_read_of_a_run_is_not_read_again_when_it_is_over(
    store: "S3Store", tmp_path: Path
) -> None:
    reads = Reads(store)
    workspace = workspace_of(cast(Any, reads), tmp_path)
    parts = RunParts(store, f"{JOB}/checkpoints/", 1)
    for node in (0, 1):
        publish(parts, tmp_path, "step-1", node=node)
    job, finder = job_of(run=1, nodes=2), CheckpointFinder(keep=0, clock=lambda: 0)
    # The second look sees the mark that the first has made.
    for _ in range(2):
        workspace.checkpoints(job, finder, last=True)
    assert len(reads.keys) > 1
    reads.keys.clear()
    assert len(workspace.run_over(job)) == 0
    assert reads.keys == []
    # What is known of another run says nothing.
    later = RunParts(store, f"{JOB}/checkpoints/", 2)
    for node in (0, 1):
        publish(later, tmp_path, "step-2", node=node)
    workspace.run_over(job_of(run=2, nodes=2))
    assert any("step-2" in key for key in reads.keys)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_run_has_what_earlier_ones_on_several_nodes_left_removed(
    store: "S3Store", tmp_path: Path, nodes: int
) -> None:
    workspace = workspace_of(store, tmp_path)
    # The node was cut off, and published its part when the run was over.
    publish(RunParts(store, f"{JOB}/checkpoints/", 1), tmp_path, "step-1", node=0)
    job, finder = job_of(run=2, nodes=nodes), CheckpointFinder(keep=0, clock=lambda: 0)
    assert workspace.checkpoints(job, finder) == ()
    assert finder.leftovers
    workspace.remove_leftovers(job)
    assert list(store.objects(f"{JOB}/checkpoints/")) == []
    # It is too early for another look.
    workspace.checkpoints(job, finder)
    assert not finder.leftovers
    workspace.checkpoints(job, finder, last=True)
    assert not finder.leftovers
