"""Become another program that does not outlive the process that started it.

Run as a script: `die_with_parent.py PARENT SIGNAL USER COMMAND...`. `PARENT` is the
starter's pid, `SIGNAL` the number that the program is sent when the starter
dies, `USER` either `-` or `uid:gid` to become before, and `uid:gid+` to keep
root's right to pass directories that are closed to that user.

It is a program of its own, not code between fork and exec, because Python
does not promise that such code works in a process that has threads. The
kernel's part is Linux's alone; elsewhere only the user is changed.
"""

import ctypes
import os
import sys
from collections.abc import Sequence

# linux/prctl.h, linux/securebits.h, linux/capability.h
PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: Sequence[str]) -> None:
    """Change the user, ask for the signal, become the command."""
    parent, number, user, *command = arguments
    if user != "-":
        _become(*map(int, user.rstrip("+").split(":")), keep_passage=user.endswith("+"))
    if sys.platform == "linux":
        # After the change of user, which would clear the request again.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)  # It died before the signal was asked for.
    os.execv(command[0], command)


def _become(uid: int, gid: int, *, keep_passage: bool) -> None:
    libc = ctypes.CDLL(None)
    keep_passage = keep_passage and sys.platform == "linux"
    if keep_passage:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        # Without it access(2), by which PostgreSQL looks for its own programs,
        # does not heed the capabilities of a user who is not root.
        libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if keep_passage:
        # Effective, permitted, inheritable; a second triple for the capabilities over 31.
        only = 1 << CAP_DAC_OVERRIDE
        libc.capset(
            (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0),
            (ctypes.c_uint32 * 6)(only, only, only, 0, 0, 0),
        )
        # Refused where a container has taken the capability away: then the
        # command says itself what it cannot reach.
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
