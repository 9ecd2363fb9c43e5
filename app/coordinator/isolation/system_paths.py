"""What a training process may touch of the system, and what a kernel cannot keep it from."""

import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from app.coordinator.isolation.landlock import DEVICES, Confinement, landlock_version

__all__ = ["DEVICES", "SYSTEM", "Confinement", "landlock_version", "missing_protection"]
__all__ += ["system_paths"]

#: What of the system a process needs to run at all: programs, libraries, what tells of the machine.
SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/gnu/store"),
    *("/proc", "/sys", "/run/opengl-driver"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload"),
    *("/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/etc/hosts", "/etc/host.conf", "/etc/hostname", "/etc/resolv.conf", "/etc/gai.conf"),
    *("/etc/services", "/etc/protocols", "/etc/ssl", "/etc/pki", "/etc/ca-certificates"),
    *("/etc/debian_version", "/etc/lsb-release", "/etc/redhat-release", "/etc/pip.conf"),
    *("/etc/alternatives", "/etc/os-release", "/etc/mime.types", "/etc/fonts"),
    *("/etc/nvidia", "/etc/OpenCL", "/etc/vulkan"),
)


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
