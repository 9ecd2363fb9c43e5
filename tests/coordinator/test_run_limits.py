from pathlib import Path

import pytest

from app.coordinator.engines.local.run_limits import RunLimits
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest
from app.coordinator.resources.process_room import ProcessRoom
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

GIB = 1024**3
PLACES = {"file": Path("/m"), "checkpoints": Path("/c")}
#: Of this machine the coordinator may use cores 2, 3, 6 and 7.
LIMITS = RunLimits(
    cores=[2, 3, 6, 7],
    memory=8 * GIB,
    processes=100,
    open_files=200,
    disk_bytes=300,
    files=400,
    checkpoint_bytes=500,
    log_bytes=600,
    metrics_bytes=700,
    affinity_filter="the filter",
)


def job(*placement: Allocation) -> JobRecord:
    return JobRecord(
        job_id="j",
        tenant_id="t",
        user_id="u",
        name="n",
        submission=SubmitJobRequest(),
        resource_request=ResourceRequest(),
        created_at=1,
        updated_at=1,
        placement=placement,
        node_ids=tuple(share.node_id for share in placement),
    )


def test_what_was_asked_for_is_the_limit() -> None:
    section = LIMITS.section(
        job(Allocation("local", (), 2, GIB, (0, 2))),
        [Path("/a"), Path("/b")],
        **PLACES,
        own_processes=False,
    )
    assert section == {
        "rlimits": {"NOFILE": 200, "FSIZE": 8 * GIB, "CORE": 0},
        "cores": [2, 6],
        "filter": "the filter",
        "nice": 0,
        "oom_score_adj": 500,
        "memory": GIB,
        "group": "",
        "tasks": 100,
        "disk_bytes": 300,
        "files": 400,
        "directories": ["/a", "/b"],
        "file": "/m",
        "checkpoint_bytes": 500,
        "checkpoints": "/c",
        "log_bytes": 600,
        "metrics_bytes": 700,
    }


def test_what_was_not_asked_for_is_not_limited_and_comes_last() -> None:
    section = LIMITS.section(job(Allocation("local", (), 0, 0)), [], **PLACES, own_processes=True)
    assert (section["cores"], section["memory"]) == ([], 0)
    assert section["filter"] == ""
    assert section["rlimits"]["NPROC"] == 100
    assert (section["nice"], section["oom_score_adj"]) == (10, 800)


@pytest.mark.parametrize(
    ("placement", "cores"),
    [
        # All that there is.
        ([Allocation("local", (), 4, 0, (0, 1, 2, 3))], []),
        # More cores were declared than there are: some numbers are the same core.
        ([Allocation("local", (), 2, 0, (1, 5))], [3]),
        # Ranks on several nodes of this machine share what they have together.
        ([Allocation("a", (), 1, 0, (0,)), Allocation("b", (), 1, 0, (1,))], [2, 3]),
        # Placed by a coordinator that did not number cores.
        ([Allocation("local", (), 2, 0)], []),
    ],
)
def test_which_cores(placement: list[Allocation], cores: list[int]) -> None:
    assert LIMITS.section(job(*placement), [], **PLACES, own_processes=False)["cores"] == cores


def test_what_this_machine_lacks_is_not_enforced_and_told() -> None:
    virtual = job(Allocation("big", (0,), 64, 512 * GIB, tuple(range(64))))
    section = LIMITS.section(virtual, [], **PLACES, own_processes=True)
    assert (section["cores"], section["memory"]) == ([], 0)
    assert LIMITS.lacking(virtual) == (
        "This machine does not have 64 cores and 512.0 GiB of memory. They are accounted for on"
        " big, and the run is not limited to them."
    )
    assert LIMITS.lacking(job(Allocation("big", (0,), 4, 8 * GIB, (0, 1, 2, 3)))) == ""


def _processes(
    limits: RunLimits, *placement: Allocation, own_processes: bool
) -> tuple[int, int | None]:
    """How many the watch allows a run, and how many the kernel."""
    section = limits.section(job(*placement), [], **PLACES, own_processes=own_processes)
    return section["tasks"], section["rlimits"].get("NPROC")


def test_all_runs_together_have_no_more_processes_than_there_is_room_for() -> None:
    limits = RunLimits(
        cores=[0, 1, 2, 3],
        memory=8 * GIB,
        processes=4096,
        open_files=200,
        disk_bytes=300,
        files=400,
        process_room=ProcessRoom(left=800, source="pid_max", limit=1000),
        cluster_cores=4,
        user_processes=950,
    )
    idle = Allocation("local", (), 0, 0, ())
    assert _processes(limits, idle, own_processes=True) == (100, 100)
    assert _processes(limits, Allocation("local", (), 4, 0, ()), own_processes=True) == (400, 400)
    assert _processes(limits, idle, idle, own_processes=True) == (200, 200)
    # Where the kernel counts all of the user's processes, the coordinator's are among them.
    assert _processes(limits, idle, own_processes=False) == (100, 950)


def test_job_processes_holds_where_there_is_more_room() -> None:
    limits = RunLimits(
        cores=[0],
        memory=8 * GIB,
        processes=100,
        open_files=200,
        disk_bytes=300,
        files=400,
        process_room=ProcessRoom(left=30_000, source="pid_max", limit=32_768),
    )
    assert _processes(limits, Allocation("local", (), 0, 0, ()), own_processes=True) == (100, 100)
