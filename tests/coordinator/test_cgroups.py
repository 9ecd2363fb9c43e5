"""Groups of runs, on a directory with the files of one: few machines lend tests a real one."""

import os
from pathlib import Path

import pytest

from app.coordinator.resources import cgroups
from app.coordinator.resources.cgroups import NoGroups, RunGroup, find_parent, own_group, run_group
from app.coordinator.resources.resource_watch import Bounds, ResourceWatch

MIB = 1024**2
FILES = ("memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs", "memory.events")


def _group(path: Path, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (path / name).write_text("")
    for name, text in files.items():
        (path / name.replace("_", ".", 1)).write_text(text)
    return path


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("4:memory:/v1\n0::/service\n")
    return tmp_path / "proc"


def test_a_run_has_its_memory_and_no_swap(tmp_path: Path) -> None:
    path = _group(tmp_path / "run-job-1")
    group = RunGroup(path, memory=64 * MIB)
    group.enclose(4711)
    assert (path / "memory.max").read_text() == str(64 * MIB)
    assert (path / "memory.swap.max").read_text() == "0"
    assert (path / "memory.oom.group").read_text() == "1"
    assert (path / "cgroup.procs").read_text() == "4711"
    assert not group.killed()
    (path / "memory.events").write_text("oom 1\noom_kill 0\noom_group_kill 0\n")
    assert not group.killed()
    (path / "memory.events").write_text("oom 1\noom_kill 3\noom_group_kill 1\n")
    assert group.killed()


def test_a_run_that_the_kernel_ended_has_that_reason(tmp_path: Path) -> None:
    path = _group(tmp_path / "run-job-1", memory_events="oom_kill 1\n")
    watch = ResourceWatch(Bounds(memory=64 * MIB, group=str(path)))
    assert watch.over() == ""
    watch.enclose(4711)
    assert watch.over() == "used 64.0 MiB of the 64.0 MiB asked"
    assert watch.take_problem() == ""
    watch.close()


def test_without_a_group_memory_is_only_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    watch = ResourceWatch(Bounds(memory=64 * MIB, group=str(tmp_path / "file" / "run-job-1")))
    watch.enclose(4711)
    assert watch.over() == ""
    assert "Not a directory" in watch.take_problem()
    watch.close()


def test_groups_of_runs_that_are_over_are_removed(tmp_path: Path) -> None:
    (tmp_path / "run-job-1").mkdir()
    _group(tmp_path / "run-job-2")
    (tmp_path / "coordinator").mkdir()
    assert run_group(tmp_path, "job-3") == tmp_path / "run-job-3"
    assert sorted(os.listdir(tmp_path)) == ["coordinator", "run-job-2"]


def test_whose_group_it_is(tmp_path: Path, proc: Path) -> None:
    assert own_group(tmp_path, proc) == tmp_path / "service"
    # It has moved before.
    (proc / "self" / "cgroup").write_text("0::/service/coordinator\n")
    assert own_group(tmp_path, proc) == tmp_path / "service"
    for text in ("4:memory:/v1\n", "0::/../outside\n", ""):
        (proc / "self" / "cgroup").write_text(text)
        with pytest.raises(NoGroups, match="no cgroup v2"):
            own_group(tmp_path, proc)


def test_the_coordinator_moves_below_if_it_is_alone(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    tried: list[Path] = []
    monkeypatch.setattr(cgroups, "_try", tried.append)
    own = _group(
        tmp_path / "service",
        cgroup_controllers="cpu memory pids",
        cgroup_subtree_control="",
        cgroup_procs=f"{os.getpid()}\n",
    )
    _group(own / "coordinator")
    assert find_parent(tmp_path, proc) == own
    assert (own / "coordinator" / "cgroup.procs").read_text() == str(os.getpid())
    assert (own / "cgroup.subtree_control").read_text() == "+memory"
    assert tried == [own]


def test_why_no_groups_can_be_made(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    with pytest.raises(NoGroups, match="No such file"):
        find_parent(tmp_path, proc)
    own = _group(tmp_path / "service", cgroup_controllers="hugetlb")
    with pytest.raises(NoGroups, match="no memory controller"):
        find_parent(tmp_path, proc)
    _group(own, cgroup_controllers="memory", cgroup_subtree_control="", cgroup_procs="1\n2\n")
    with pytest.raises(NoGroups, match="not alone"):
        find_parent(tmp_path, proc)
    monkeypatch.setenv("INVOCATION_ID", "of a service")
    with pytest.raises(NoGroups, match="Delegate=yes"):
        find_parent(tmp_path, proc)


def test_a_limit_that_does_not_hold_is_none(tmp_path: Path, proc: Path) -> None:
    """Files of a directory limit nothing: the probe finds that out."""
    own = _group(tmp_path / "service", cgroup_controllers="memory", cgroup_subtree_control="memory")
    probe = _group(own / "probe")
    with pytest.raises(NoGroups, match="does not hold"):
        find_parent(tmp_path, proc)
    assert (probe / "memory.max").read_text() == str(32 * MIB)
