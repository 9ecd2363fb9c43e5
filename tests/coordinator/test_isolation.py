"""The parts of a sandbox, each by itself."""

import base64
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.coordinator.isolation import devices, seccomp
from app.coordinator.isolation.bubblewrap import View, arguments, passwd_of
from app.coordinator.isolation.devices import GpuDevice, device_files, find_gpu_devices
from app.coordinator.isolation.levels import Isolation, Level, at_least
from app.coordinator.isolation.probe import remedies
from app.coordinator.isolation.seccomp import NoFilter, make_filter
from app.coordinator.settings.values import parse_isolation, parse_network, parse_uids


def view(path: Path, **changes: object) -> list[str]:
    """The arguments for a job whose directories are below `path`."""
    for name in ("work", "tmp"):
        (path / name).mkdir(exist_ok=True)
    values = {
        "readable": ["/usr"],
        "writable": [str(path / "work")],
        "temporary": str(path / "tmp"),
        "shared_memory": 4096,
        "passwd": 7,
        "group": 8,
        **changes,
    }
    return arguments(View(**values))  # type: ignore[arg-type]  # as the callers say


def test_what_is_demanded_is_met_by_what_is_stronger() -> None:
    assert at_least("auto") == tuple(Level)
    assert at_least("namespaces") == (Level.NAMESPACES,)
    assert at_least("landlock") == (Level.LANDLOCK, Level.USER, Level.NAMESPACES)


def test_only_two_levels_part_tenants() -> None:
    assert [level for level in Level if Isolation(level).parts_tenants] == [
        Level.NAMESPACES,
        Level.USER,
    ]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_isolation, "strong"),
        (parse_network, "host"),
        (parse_uids, "1000"),
        (parse_uids, "0-10"),
        (parse_uids, "20-10"),
        (parse_uids, "1-4294967295"),
    ],
)
def test_settings_that_mean_nothing_are_refused(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse(text)


def test_user_ids_are_a_range_with_both_ends() -> None:
    uids = parse_uids("60706-61183")
    assert (uids.uids[0], uids.uids[-1], str(uids)) == (60706, 61183, "60706-61183")


def test_what_is_bound_later_covers_what_is_below_it(tmp_path: Path) -> None:
    found = view(tmp_path, readable=["/usr", str(tmp_path), "/usr/lib"])
    at = [found.index(path) for path in ("/usr", "/usr/lib", str(tmp_path / "work"))]
    assert at == sorted(at)
    assert found[found.index("/tmp") - 2 : found.index("/tmp") + 1] == [
        "--bind",
        str(tmp_path / "tmp"),
        "/tmp",
    ]


def test_directories_on_the_way_are_passed_and_not_listed(tmp_path: Path) -> None:
    found = view(tmp_path)
    for parent in tmp_path.parents[:-2]:
        at = found.index(str(parent))
        assert found[at - 3 : at] == ["--perms", "0111", "--dir"]


def test_links_of_the_system_stay_links(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to("real")
    found = view(tmp_path, readable=[str(link), str(real)])
    at = found.index(str(link))
    assert found[at - 2 : at] == ["--symlink", "real"]


def test_the_whole_root_is_never_shown(tmp_path: Path) -> None:
    found = view(tmp_path, readable=["/", "/proc", "/dev", "/tmp", "/nowhere/at/all"])
    assert "/" not in found
    assert "/nowhere/at/all" not in found
    assert found.count("/proc") == 1


def test_capabilities_are_kept_for_another_user_alone(tmp_path: Path) -> None:
    assert "--cap-add" not in view(tmp_path)
    assert view(tmp_path, uid=60706).count("--cap-add") == 3
    assert "--unshare-net" not in view(tmp_path)
    assert "--unshare-net" in view(tmp_path, network=False)


def test_a_user_of_a_job_has_a_name() -> None:
    passwd, group = passwd_of(60706, "/home")
    assert "job:x:60706:60706::/home:/bin/sh\n" in passwd
    assert "job:x:60706:\n" in group
    assert passwd_of(0, "/home")[0].count("\n") == 2


def test_a_filter_is_a_program_of_the_kernels() -> None:
    programs = [base64.b64decode(make_filter(namespaces=each)) for each in (True, False)]
    for program in programs:
        assert len(program) % 8 == 0
        # It begins by loading the architecture (offset 4 of seccomp_data).
        assert struct.unpack("=HBBI", program[:8]) == (0x20, 0, 0, 4)
    assert len(programs[0]) < len(programs[1]), "without namespaces more is forbidden"


def test_a_system_without_libseccomp_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> object:
        raise RuntimeError("Unable to find libseccomp")

    monkeypatch.setattr(seccomp, "import_module", missing)
    with pytest.raises(NoFilter, match="libseccomp"):
        make_filter(namespaces=True)


class _Error(Exception):
    """What NVML raises."""


def test_a_job_is_shown_its_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    # Numbers of device files need not follow the order of the bus.
    minors = {0: 1, 1: 0}
    library = SimpleNamespace(
        NVMLError=_Error,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMinorNumber=minors.__getitem__,
        nvmlDeviceGetUUID=lambda index: f"GPU-{index}",
    )
    monkeypatch.setattr(devices, "import_module", lambda _: library)
    gpus = find_gpu_devices()
    assert gpus == (GpuDevice("GPU-0", "/dev/nvidia1"), GpuDevice("GPU-1", "/dev/nvidia0"))
    own = device_files(gpus, [0])
    assert "/dev/nvidia1" in own
    assert "/dev/nvidia0" not in own
    assert "/dev/nvidiactl" in own
    assert device_files(gpus, []) == []


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("refused (kernel.apparmor_restrict_unprivileged_userns is 1)", "AppArmor profile"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "hostUsers"),
        ("nesting depth or /proc/sys/user/max_*_namespaces exceeded", "max_user_namespaces"),
        ("there is no bwrap", "Install bubblewrap"),
        ("something else", "user namespaces"),
    ],
)
def test_what_was_refused_comes_with_what_helps(reason: str, remedy: str) -> None:
    told = remedies({Level.NAMESPACES: reason})
    assert remedy in told
    assert "as root" in told


#: Tries to make threads whose open files are theirs alone, then one as libraries make it.
_THREADS = """
import base64, ctypes, os, subprocess, sys, threading
from app.coordinator.isolation import kernel
kernel.libc.prctl(38, 1, 0, 0, 0)
kernel.install_filter(base64.b64decode(sys.argv[1]))
libc = ctypes.CDLL(None, use_errno=True)
def refused(*call):
    return libc.syscall(*call) == -1 and os.strerror(ctypes.get_errno())
CLONE, CLOSE_RANGE = {"x86_64": (56, 436), "aarch64": (220, 436)}[os.uname().machine]
print(refused(CLONE, 0x10000 | 0x800 | 0x100, 0, 0, 0, 0))
print(refused(CLOSE_RANGE, 900, 901, 2))
os.closerange(900, 901)
thread = threading.Thread(target=lambda: print(subprocess.run(["echo", "fine"]).returncode))
thread.start()
thread.join()
"""


@pytest.mark.parametrize("namespaces", [True, False])
def test_a_thread_has_no_open_files_of_its_own(namespaces: bool) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _THREADS, make_filter(namespaces=namespaces)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(told.stdout.split("\n")) == sorted(
        ["Operation not permitted", "Operation not permitted", "fine", "0", ""]
    )


#: Tries to change how its parent is scheduled, then what is the process's own.
_SCHEDULING = """
import base64, ctypes, json, os, sys, threading
from app.coordinator.isolation import kernel
kernel.libc.prctl(38, 1, 0, 0, 0)
kernel.install_filter(base64.b64decode(sys.argv[1]))
libc = ctypes.CDLL(None, use_errno=True)
other = os.getppid()
IOPRIO_SET, SCHED_SETATTR = {"x86_64": (251, 314), "aarch64": (30, 274)}[os.uname().machine]
def called(*call):
    if libc.syscall(*map(ctypes.c_long, call)) == -1:
        raise OSError(ctypes.get_errno(), "")
def told(call, *arguments):
    try:
        call(*arguments)
    except PermissionError:
        return "refused"
    return "done"
attributes = ctypes.create_string_buffer(bytes([48, 0, 0, 0, 3]) + bytes(43))
own = os.sched_getaffinity(0)
print(json.dumps([
    told(os.setpriority, os.PRIO_PROCESS, other, 1),
    told(os.setpriority, os.PRIO_PGRP, os.getpgid(other), 1),
    told(os.setpriority, os.PRIO_USER, os.getuid(), 1),
    told(os.setpriority, os.PRIO_USER, 0, 1),
    told(os.sched_setscheduler, other, os.SCHED_BATCH, os.sched_param(0)),
    told(os.sched_setparam, other, os.sched_param(0)),
    told(called, SCHED_SETATTR, other, ctypes.addressof(attributes), 0),
    told(called, IOPRIO_SET, 1, other, 3 << 13),
    told(called, IOPRIO_SET, 3, 0, 3 << 13),
    told(called, IOPRIO_SET, 2**32 + 3, 0, 3 << 13),
]))
os.sched_setaffinity(other, {min(own)})
thread = threading.Thread(target=lambda: os.sched_setaffinity(threading.get_native_id(), own))
thread.start()
thread.join()
print(json.dumps([
    told(os.nice, 1),
    told(os.setpriority, os.PRIO_PROCESS, 0, 2),
    told(os.sched_setaffinity, 0, own),
    told(os.sched_setscheduler, 0, os.SCHED_BATCH, os.sched_param(0)),
    told(called, IOPRIO_SET, 1, 0, 3 << 13),
]))
"""


def test_a_process_schedules_itself_and_nobody_else() -> None:
    nice, cores = os.nice(0), os.sched_getaffinity(0)
    # A parent of its own: what is done to it if the filter does not hold stays there.
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    told = subprocess.run(
        [sys.executable, "-c", parent, _SCHEDULING, make_filter(namespaces=False)],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    others, own = map(json.loads, told.stdout.splitlines())
    assert others == ["refused"] * 10, told.stderr
    assert own == ["done"] * 5
    assert (os.nice(0), os.sched_getaffinity(0)) == (nice, cores)
