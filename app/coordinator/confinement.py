"""What a training process may touch: Landlock rules, and none of root's capabilities.

A process that is confined reads what the system and its own job have, writes
what its own job has, and can neither look into processes that are not its own
(`/proc/<pid>/environ`, `mem`, `fd`) nor signal them. It needs no privilege, holds
for whatever the process starts, and cannot be undone (Linux 5.13, landlock(7)).
"""

import ctypes
import os
import signal
import stat
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

#: What of the system a process needs to run at all: programs, libraries, what tells of the machine.
SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/gnu/store"),
    *("/proc", "/sys", "/run/opengl-driver"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload"),
    *("/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/etc/hosts", "/etc/host.conf", "/etc/hostname", "/etc/resolv.conf", "/etc/gai.conf"),
    *("/etc/services", "/etc/protocols", "/etc/ssl", "/etc/pki", "/etc/ca-certificates"),
    *("/etc/alternatives", "/etc/os-release", "/etc/mime.types", "/etc/fonts"),
    *("/etc/nvidia", "/etc/OpenCL", "/etc/vulkan"),
)
#: Devices that belong to nobody, and the accelerators.
DEVICES: Final = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"),
    *("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"),
    *("/dev/nvidia-caps", "/dev/kfd", "/dev/dri", "/dev/infiniband"),
    *(f"/dev/nvidia{index}" for index in range(16)),
)
#: Here processes share memory under names that they make up. Its contents cannot be listed,
#: so that only those find a name who were told it.
SHARED_MEMORY: Final = "/dev/shm"

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_FILE: Final = 1 << 5
_MAKE_REG: Final = 1 << 8
#: The first version of Landlock knows the rights up to MAKE_SYM.
_FIRST_RIGHTS: Final = (1 << 13) - 1
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_IOCTL_DEVICE: Final = 1 << 15
_NOT_FOR_FILES: Final = ~(_EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE)
_MAKE_DEVICES: Final = (1 << 6) | (1 << 11)
_SCOPES: Final = 0b11  # abstract Unix sockets, signals

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITIES_V3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathAttributes(ctypes.Structure):
    _layout_ = "ms"
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def landlock_version() -> int:
    """The version of Landlock that this kernel has; 0 where it has none."""
    return max(int(_libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)), 0)


def missing_protection(version: int) -> str:
    """What a training process is not kept from on a kernel with this Landlock; empty if nothing."""
    if version == 0:
        return (
            "this kernel has no Landlock (Linux 5.13, in the `lsm=` of its command line):"
            " a training script can read what the coordinator's user can read,"
            " other tenants' files included"
        )
    if version < 3:
        return (
            "this kernel's Landlock is older than Linux 6.2: a training script can empty files"
            " and signal processes of the coordinator's user"
        )
    if version < 6:
        return (
            "this kernel's Landlock is older than Linux 6.12: a training script can signal"
            " processes of the coordinator's user"
        )
    return ""


class Confinement:
    """Rules that a process and all that it starts are held to. A context manager.

    Paths that are not there are passed over.
    """

    def __init__(self, *, readable: Iterable[str], writable: Iterable[str]) -> None:
        self._ruleset: int | None = None
        version = landlock_version()
        if version == 0:
            return
        rights = _FIRST_RIGHTS
        for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
            if version >= since:
                rights |= right
        attributes = _RulesetAttributes(rights, 0, _SCOPES if version >= 6 else 0)
        self._ruleset = _checked(
            _libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
        )
        try:
            self._allow(readable, _EXECUTE | _READ_FILE | _READ_DIR)
            self._allow(writable, rights & ~_MAKE_DEVICES)
            device = rights & (_READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _IOCTL_DEVICE)
            self._allow(DEVICES, device)
            shared = _READ_FILE | _WRITE_FILE | _TRUNCATE | _MAKE_REG | _REMOVE_FILE
            self._allow([SHARED_MEMORY], rights & shared)
        except BaseException:
            os.close(self._ruleset)
            raise

    def _allow(self, paths: Iterable[str], rights: int) -> None:
        for path in paths:
            try:
                file = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            try:
                is_directory = stat.S_ISDIR(os.fstat(file).st_mode)
                beneath = _PathAttributes(
                    rights if is_directory else rights & ~_NOT_FOR_FILES, file
                )
                _checked(
                    _libc.syscall(_ADD_RULE, self._ruleset, _PATH_BENEATH, ctypes.byref(beneath), 0)
                )
            finally:
                os.close(file)

    def enter(self) -> None:
        """Confine this process, for good: between fork and exec, in a process of one thread.

        It dies with its parent, too. Raises OSError.
        """
        _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
        _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()))
        if self._ruleset is not None:
            _checked(_libc.syscall(_RESTRICT_SELF, self._ruleset, 0))
        _checked(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0))

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the rules; those who entered stay confined."""
        if self._ruleset is not None:
            os.close(self._ruleset)
            self._ruleset = None


def system_paths(private: Collection[Path]) -> tuple[str, ...]:
    """What every training process may read: the system and this Python, nothing in `private`.

    Nor what lies beside a private directory: other parts of this deployment
    keep their secrets there. Where that is within the system, the rest of it
    is named one by one.
    """
    roots = [*SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    found: dict[str, None] = {}
    for root in map(Path, dict.fromkeys(roots)):
        hidden = [_surroundings(path.resolve(), root.resolve()) for path in private]
        for path in _beside(root, hidden):
            found[str(path)] = None
    return tuple(found)


def _surroundings(private: Path, root: Path) -> Path:
    return private if root.is_relative_to(private.parent) else private.parent


def _beside(path: Path, hidden: Collection[Path]) -> Iterable[Path]:
    """`path`, or of what is in it all that is not hidden."""
    real = path.resolve()
    if any(real.is_relative_to(private) for private in hidden):
        return
    if any(private.is_relative_to(real) for private in hidden):
        for entry in sorted(real.iterdir()):
            yield from _beside(entry, hidden)
    else:
        yield path


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
