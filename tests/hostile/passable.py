"""Becomes a command in a mount namespace where every user can reach this Python.

`python passable.py [--user UID] COMMAND...`, run by root. Where Python lies in
the home of root, no other user can start it: neither an ordinary one, nor those
of jobs at the level `user`.
"""

import os
import subprocess
import sys
from pathlib import Path


def show(prefix: Path) -> None:
    """Mount `prefix` at its own path below directories that all may pass."""
    closed = [path for path in reversed(prefix.parents) if not path.stat().st_mode & 0o001]
    if not closed:
        return
    held = os.open(prefix, os.O_PATH)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "none", str(closed[0]))
    prefix.mkdir(parents=True)
    run("mount", "--no-canonicalize", "--bind", f"/proc/self/fd/{held}", str(prefix), keep=held)


def run(*command: str, keep: int = 0) -> None:
    subprocess.run(command, check=True, pass_fds=[keep] if keep else [])


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[0] != "--apart":
        again = [sys.executable, __file__, "--apart", *arguments]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *again])
    arguments = arguments[1:]
    show(Path(sys.base_prefix).resolve())
    if arguments[0] == "--user":
        uid = int(arguments[1])
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        arguments = arguments[2:]
    os.execvp(arguments[0], arguments)


if __name__ == "__main__":
    main()
