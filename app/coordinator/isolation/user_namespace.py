"""Makes a user namespace for one job, and becomes bubblewrap in it.

A program, see `programs`, with the arguments UID BWRAP ARGUMENT...; root runs it. In the
namespace 0 is who calls and UID is itself, and no other user namespace can be
made in it. Bubblewrap's own `--uid` would only rename root: the kernel would
still take the job's processes for root where it asks for no capability.
"""

import errno
import os
import sys

from app.coordinator.isolation.kernel import die_with_parent, enter_user_namespace

_NO_MORE = "/proc/sys/user/max_user_namespaces"


def make_user_namespace(uid: int) -> int:
    """A descriptor of the namespace, to be inherited. Raises OSError."""
    told, tell = os.pipe()
    awaited, answer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.close(answer)
        try:
            die_with_parent(9)
            enter_user_namespace()
            os.write(tell, b"made")
            # The maps must be written from outside; then it is root of its own, and may forbid.
            if os.read(awaited, 1):
                _forbid_further()
                os.write(tell, b"ready")
                os.read(awaited, 1)
        except OSError as error:
            os.write(2, f"{error.strerror}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(tell)
    os.close(awaited)
    try:
        if not os.read(told, 16):
            raise PermissionError(1, "it was refused")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                file.write(f"0 0 1\n{uid} {uid} 1\n")
        os.write(answer, b"x")
        if not os.read(told, 16):
            raise PermissionError(1, "it could not be closed to further ones")
        namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    finally:
        os.close(answer)
        os.close(told)
        os.waitpid(child, 0)
    os.set_inheritable(namespace, True)
    return namespace


def _forbid_further() -> None:
    try:
        with open(_NO_MORE, "w", encoding="ascii") as file:
            file.write("0")
    except OSError as error:
        # Containers have /proc/sys read-only; the seccomp filter forbids the same.
        if error.errno != errno.EROFS:
            raise


def main() -> int:
    """Become bubblewrap."""
    uid, program, *arguments = sys.argv[1:]
    try:
        namespace = make_user_namespace(int(uid))
        os.execv(program, [program, "--userns", str(namespace), *arguments])
    except OSError as error:
        sys.stderr.write(f"a user namespace for {uid} cannot be made: {error.strerror}\n")
    return 1
