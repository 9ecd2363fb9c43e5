"""The system calls that no training process needs, and that would reach beyond its sandbox.

The filter is made by libseccomp, as for Docker and systemd, through pyseccomp.
Of the other binding, seccompy, only that it needs no library of the system
would speak for it: it writes the BPF by itself and is very young, where an error
is a hole that nobody sees. libseccomp2 is there wherever apt or systemd is.
"""

import base64
import errno
import tempfile
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

#: They fail as if they were not allowed.
_DENIED: Final = (
    # Keys of other processes of the user (keyrings have no namespace of their own).
    *("add_key", "keyctl", "request_key"),
    # Ways into the kernel that sandboxes were left by.
    *("userfaultfd", "bpf", "perf_event_open", "fanotify_init", "kcmp", "lookup_dcookie"),
    # Namespaces and mounts.
    *("unshare", "setns", "mount", "umount2", "pivot_root", "fsopen", "fsmount", "fsconfig"),
    *("fspick", "move_mount", "open_tree", "mount_setattr", "open_by_handle_at"),
    # The machine as a whole.
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"),
    *("swapon", "swapoff", "reboot", "acct", "quotactl", "quotactl_fd", "syslog"),
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname"),
    *("setdomainname", "move_pages", "migrate_pages", "iopl", "ioperm", "vhangup"),
)
#: They fail as on a kernel that does not have them: libraries then do without.
_ABSENT: Final = ("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3")
#: System V objects outlive their job where there is no IPC namespace.
_SHARED_OBJECTS: Final = ("shmget", "semget", "msgget", "mq_open")
#: Bits of clone(2) that make namespaces: mount, cgroup, UTS, IPC, user, PID, network.
_CLONE_NEW: Final = (
    *(0x00020000, 0x02000000, 0x04000000, 0x08000000),
    *(0x10000000, 0x20000000, 0x40000000),
)
#: Bits of clone(2): CLONE_FILES, CLONE_THREAD; of close_range(2): CLOSE_RANGE_UNSHARE. A thread
#: with open files of its own is none that libraries make, and could hide memory there: the
#: watch looks at the files of a process's first thread.
_SHARED_FILES: Final = 0x00000400
_THREAD: Final = 0x00010000
_CLOSE_APART: Final = 0x2
#: Priorities and schedulers: which argument tells whose they are; 0 is the caller.
_SCHEDULING: Final = {
    "setpriority": 1,
    "ioprio_set": 1,
    "sched_setscheduler": 0,
    "sched_setparam": 0,
    "sched_setattr": 0,
}
#: First arguments with which 0 is the caller's user: PRIO_USER, IOPRIO_WHO_USER.
_OF_USER: Final = {"setpriority": 2, "ioprio_set": 3}
#: Requests of ioctl(2) that write into a terminal's input: TIOCSTI, TIOCLINUX.
_TERMINAL_INPUT: Final = (0x5412, 0x541C)


class NoFilter(Exception):
    """A filter cannot be made here; the message says what is missing."""


def make_affinity_filter() -> str:
    """A filter with which a process keeps the cores that it was given. Raises NoFilter.

    What asks for others is told that it has them: thread pools that pin their
    threads go on, where they would fail with an error.
    """
    rules = _library().SyscallFilter(defaction=_library().ALLOW)
    rules.add_rule(_library().ERRNO(0), "sched_setaffinity")
    return _exported(rules)


def make_filter(*, namespaces: bool, own_user: bool = False) -> str:
    """A filter's program in base64, for `kernel.install_filter`. Raises NoFilter.

    Without namespaces it forbids besides what those take away: limits of other
    processes and System V objects; without a user of the run's own, priorities
    and cores of other processes, too. Calls of another architecture end the process.
    """
    library = _library()
    rules = library.SyscallFilter(defaction=library.ALLOW)
    denied, absent = library.ERRNO(errno.EPERM), library.ERRNO(errno.ENOSYS)
    names = [(denied, name) for name in _DENIED] + [(absent, name) for name in _ABSENT]
    if not namespaces:
        names += [(denied, name) for name in _SHARED_OBJECTS]
    for action, name in names:
        # Some architectures do not have it, and older libraries do not know it by name.
        with suppress(OSError, ValueError):
            rules.add_rule(action, name)
    for bit in _CLONE_NEW:
        rules.add_rule(denied, "clone", library.Arg(0, library.MASKED_EQ, bit, bit))
    either = _SHARED_FILES | _THREAD
    rules.add_rule(denied, "clone", library.Arg(0, library.MASKED_EQ, either, _THREAD))
    # Older libraries do not know it by name.
    with suppress(OSError, ValueError):
        apart = library.Arg(2, library.MASKED_EQ, _CLOSE_APART, _CLOSE_APART)
        rules.add_rule(denied, "close_range", apart)
    for request in _TERMINAL_INPUT:
        rules.add_rule(denied, "ioctl", library.Arg(1, library.MASKED_EQ, 0xFFFFFFFF, request))
    if not namespaces:
        rules.add_rule(denied, "prlimit64", library.Arg(0, library.NE, 0))
    if not namespaces and not own_user:
        _keep_scheduling(rules, denied)
    return _exported(rules)


def _keep_scheduling(rules: Any, denied: int) -> None:
    """Let a process change its own priority and cores, and nobody else's."""
    library = _library()
    for name, whose in _SCHEDULING.items():
        rules.add_rule(denied, name, library.Arg(whose, library.NE, 0))
    for name, user in _OF_USER.items():
        # The kernel reads 32 bits of it.
        rules.add_rule(denied, name, library.Arg(0, library.MASKED_EQ, 0xFFFFFFFF, user))
    # Of its own threads, too, which a filter cannot tell from others: as for cores of its own,
    # thread pools are told that it is done.
    affinity = library.Arg(0, library.NE, 0)
    rules.add_rule(library.ERRNO(0), "sched_setaffinity", affinity)


def _library() -> Any:
    try:
        return import_module("pyseccomp")
    except (ImportError, OSError, RuntimeError) as error:
        raise NoFilter(f"libseccomp cannot be loaded: {error}") from None


def _exported(rules: Any) -> str:
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return base64.b64encode(file.read()).decode("ascii")
