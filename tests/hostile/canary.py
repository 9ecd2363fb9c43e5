"""Files that no job may read or change."""

import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Canary:
    """A file with a secret, outside of every job's directories."""

    path: Path
    text: str
    state: tuple[object, ...]

    @classmethod
    def at(cls, path: Path) -> "Canary":
        """Make one; its folder may be there already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"canary-{secrets.token_hex(16)}"
        path.write_text(text)
        path.chmod(0o640)
        return cls(path, text, _state(path))

    def is_untouched(self) -> None:
        """Nobody changed it, or anything about it, or its folder."""
        assert self.path.read_text() == self.text
        assert _state(self.path) == self.state

    def is_unread(self, root: Path) -> None:
        """Its text is in no file below the root, and in no name."""
        # Programs that go down any depth, and do not follow links.
        found = subprocess.run(
            ["grep", "-rlaF", "--devices=skip", self.text, root], capture_output=True, check=False
        )
        assert (found.returncode, found.stdout) == (1, b""), found
        named = subprocess.run(
            ["find", root, "-name", f"*{self.text}*"], capture_output=True, check=True
        )
        assert named.stdout == b""


def _state(path: Path) -> tuple[object, ...]:
    """All that can be seen of a file, but for when it was read."""
    what = path.lstat()
    return (
        what.st_mode,
        what.st_ino,
        what.st_uid,
        what.st_gid,
        what.st_nlink,
        what.st_size,
        what.st_mtime_ns,
        what.st_ctime_ns,
        tuple((name, os.getxattr(path, name)) for name in os.listxattr(path)),
        sorted(os.listdir(path.parent)),
    )
