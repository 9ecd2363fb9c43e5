"""The arguments that make bubblewrap build a run's sandbox (bwrap(1)).

What is bound keeps its path, so that what jobs were told of before holds inside
as well. Everything else is not there: the root is an empty tmpfs.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: Made anew instead of being bound.
_OWN: Final = ("/proc", "/dev", "/tmp", "/etc/passwd", "/etc/group")
#: What process 1 needs to start the ranks as another user, and to signal them.
_CAPABILITIES: Final = ("CAP_SETUID", "CAP_SETGID", "CAP_KILL")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a sandbox shows of the machine."""

    readable: Iterable[str]
    writable: Iterable[str]
    #: Directories, the outer before the inner, whose names may be seen as far as they are shown.
    listed: Iterable[str] = ()
    #: The directory that is `/tmp` inside.
    temporary: str
    #: Device files beside the usual ones.
    devices: Iterable[str] = ()
    #: Bytes that files in `/dev/shm` may have in all.
    shared_memory: int
    #: Whether it has the machine's network, or loopback alone.
    network: bool = True
    #: The user id of the ranks, if it is not the caller's.
    uid: int | None = None
    #: Descriptors of what `/etc/passwd` and `/etc/group` say.
    passwd: int
    group: int


def arguments(view: View) -> list[str]:
    """All arguments, but for the user namespace and the command."""
    made = _Mounts()
    flags = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if not view.network:
        flags.append("--unshare-net")
    # Without `--die-with-parent`: a signal between two steps of bubblewrap would leave a process
    # that waits for ever. The first process ends everything when the runner's pipe closes.
    flags += ["--as-pid-1", "--cap-drop", "ALL"]
    if view.uid is not None:
        flags += [part for name in _CAPABILITIES for part in ("--cap-add", name)]
    # /proc/sys besides: with root's id inside, some of it could be written without a capability.
    made.add("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev")
    for path in sorted(set(view.devices)):
        made.add("--dev-bind-try", path, path)
    made.add("--size", str(view.shared_memory), "--perms", "1777", "--tmpfs", "/dev/shm")
    made.add("--bind", view.temporary, "/tmp")
    for path in view.listed:
        made.open_folder(Path(path))
    # Links last: what they lead to is there then.
    for path in sorted(set(view.readable), key=lambda path: (os.path.islink(path), path)):
        made.show(path)
    made.add("--perms", "0644", "--ro-bind-data", str(view.passwd), "/etc/passwd")
    made.add("--perms", "0644", "--ro-bind-data", str(view.group), "/etc/group")
    for path in sorted(set(view.writable)):
        made.put(path)
    return [*flags, *made.arguments]


@dataclass(slots=True)
class _Mounts:
    """Mounts in the order in which they are made; what comes later covers what came before."""

    arguments: list[str] = field(default_factory=list)
    _bound: list[Path] = field(default_factory=list)
    _made: set[Path] = field(default_factory=lambda: {Path("/tmp")})

    def add(self, *arguments: str) -> None:
        """An argument as it is."""
        self.arguments += arguments

    def show(self, text: str) -> None:
        """Bind a path read-only, or repeat it as the link that it is."""
        path = Path(text)
        if text in _OWN or text == "/" or not os.path.exists(text):
            return
        self._lead_to(path)
        if path.is_symlink():
            real = path.resolve()
            if any(real.is_relative_to(bound) for bound in self._bound):
                self.add("--symlink", os.readlink(path), text)
                return
            if real.is_dir():
                self.show(str(real))
        self.add("--ro-bind-try", text, text)
        self._bound.append(path)

    def put(self, text: str) -> None:
        """Bind a path that can be written."""
        self._lead_to(Path(text))
        self.add("--bind", text, text)
        self._bound.append(Path(text))

    def open_folder(self, folder: Path) -> None:
        """Make a directory that can be listed: Python finds modules so."""
        self._lead_to(folder)
        self.add("--perms", "0555", "--dir", str(folder))
        self._made.add(folder)

    def _lead_to(self, path: Path) -> None:
        """Make the directories above it, such that every user can pass them, and nobody list.

        Bubblewrap makes them by itself, but for root alone.
        """
        for folder in reversed(path.parents[:-1]):
            if folder in self._made or any(folder.is_relative_to(each) for each in self._bound):
                continue
            self.add("--perms", "0111", "--dir", str(folder))
            self._made.add(folder)


def passwd_of(uid: int, home: str) -> tuple[str, str]:
    """What `/etc/passwd` and `/etc/group` say: a name for the ranks' user, root and nobody."""
    lines = [
        ("root", 0, "/root"),
        ("nobody", 65534, "/nonexistent"),
    ]
    if uid not in (0, 65534):
        lines.append(("job", uid, home))
    passwd = "".join(f"{name}:x:{each}:{each}::{place}:/bin/sh\n" for name, each, place in lines)
    group = "".join(f"{name}:x:{each}:\n" for name, each, _ in lines)
    return passwd, group
