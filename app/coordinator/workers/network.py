"""Taking the network away from a process that needs none."""

import ctypes
import os
from typing import Final

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWIPC: Final = 0x08000000

_CREATE_RULESET: Final = 444
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
#: The version of Landlock that knows TCP (Linux 6.7), and its rights: bind, connect.
_KNOWS_TCP: Final = 4
_TCP: Final = 0b11

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64), ("handled_access_net", ctypes.c_uint64))


def forbid_network() -> None:
    """Take what there is of the network from this process, which has one thread.

    Where it may make namespaces, it has not even the loopback device then;
    where Landlock knows TCP, no TCP; where neither is so, this does nothing.
    """
    _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC)
    if _libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION) < _KNOWS_TCP:
        return
    attributes = _RulesetAttributes(0, _TCP)
    ruleset = _libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        return
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
