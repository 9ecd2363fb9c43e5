"""Landlock: which files a process may touch, and that it signals nobody outside (landlock(7)).

It needs no privilege, holds for whatever the process starts, and cannot be
undone (Linux 5.13). The first process of a sandbox imports it, so it imports little.
"""

import ctypes
import os
import signal
import stat
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from app.coordinator.isolation.kernel import (
    checked,
    die_with_parent,
    forbid_new_privileges,
    keep_capabilities,
    libc,
)

#: Devices that belong to nobody, and the accelerators. In namespaces only those are there that
#: the job was given.
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
    return max(int(libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)), 0)


class Confinement:
    """Rules that a process and all that it starts are held to. A context manager.

    Paths that are not there are passed over. Without Landlock there are no rules.
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
        self._ruleset = checked(
            libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
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
                checked(
                    libc.syscall(_ADD_RULE, self._ruleset, _PATH_BENEATH, ctypes.byref(beneath), 0)
                )
            finally:
                os.close(file)

    def restrict(self) -> None:
        """Hold this process, which must have one thread, to the rules. Raises OSError."""
        forbid_new_privileges()
        if self._ruleset is not None:
            checked(libc.syscall(_RESTRICT_SELF, self._ruleset, 0))

    def enter(self) -> None:
        """Confine this process, for good: between fork and exec, in a process of one thread.

        It has no capability then, and dies with its parent. Raises OSError.
        """
        forbid_new_privileges()
        keep_capabilities(0)
        self.restrict()
        die_with_parent(int(signal.SIGKILL))

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
