"""What the kernel offers a process to give rights up, and Python has no function for.

The first process of a sandbox imports it, so it imports little.
"""

import ctypes
import os
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_CAPABILITIES_V3: Final = 0x20080522
_CLONE_NEWUSER: Final = 0x10000000
#: A BPF instruction has eight bytes (linux/filter.h).
_INSTRUCTION: Final = 8

#: linux/capability.h
CAP_KILL: Final = 1 << 5

libc: Final = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def checked(result: int) -> int:
    """The result of a call of the C library. Raises OSError if it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def forbid_new_privileges() -> None:
    """No program that this process starts gains rights by its file (prctl(2))."""
    checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def keep_capabilities(mask: int) -> None:
    """Drop every capability that is not in `mask`; what is started has none (capset(2))."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)
    checked(libc.capset(header, sets))


def capabilities() -> tuple[int, ...]:
    """Those of this thread, as `set_capabilities` takes them (capget(2))."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    sets = (ctypes.c_uint32 * 6)()
    checked(libc.capget(header, sets))
    return tuple(sets)


def set_capabilities(words: tuple[int, ...]) -> None:
    """Set this thread's capabilities: effective, permitted and inheritable, in two words each."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    checked(libc.capset(header, (ctypes.c_uint32 * 6)(*words)))


def as_register(number: int) -> ctypes.c_long:
    """An argument of a system call."""
    return ctypes.c_long(number)


def is_dumpable() -> bool:
    """Whether other processes of the same user may read this one's memory."""
    return checked(libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)) == 1


def make_undumpable() -> None:
    """Close memory and environment to other processes of the same user."""
    checked(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def make_dumpable() -> None:
    """Undo `make_undumpable`."""
    checked(libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


def become_subreaper() -> None:
    """Descendants whose parent ends become children of this process (prctl(2))."""
    checked(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def die_with_parent(number: int) -> None:
    """Receive this signal when the thread that started this process ends."""
    checked(libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0))


def install_filter(program: bytes) -> None:
    """Hold this process and all that it starts to a seccomp filter, for good (seccomp(2)).

    It must be without a way to new privileges already.
    """
    held = _Program(len(program) // _INSTRUCTION, program)
    checked(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(held), 0, 0))


def enter_user_namespace() -> None:
    """Move this process, which must have one thread, into a new user namespace (unshare(2))."""
    # Python has os.unshare since 3.12.
    if sys.version_info >= (3, 12):
        os.unshare(os.CLONE_NEWUSER)
    else:
        checked(libc.unshare(_CLONE_NEWUSER))
