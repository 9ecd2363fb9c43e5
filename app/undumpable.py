"""Keeps a program's memory and environment, which hold secrets, from other processes of its user.

Every program of the deployment calls it first; so it imports nothing of them.
"""

import ctypes
import os
import sys
from typing import Final

#: linux/prctl.h
_PR_SET_DUMPABLE: Final = 4


def make_undumpable() -> None:
    """Close `/proc/<pid>/environ`, `mem` and `maps` of this process, and ptrace(2), to every
    process without CAP_SYS_PTRACE, those of the same user included.

    It holds until the next exec, leaves no core dump, and does nothing where
    the system is not Linux. Raises OSError.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
