"""Which commit the running code is."""

import re
import subprocess
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{7,64}")


def running_commit(built: str, *, root: Path) -> str | None:
    """Return the commit that the build was given, else that of the checkout at `root`.

    None if neither is known. Blocks for as long as git takes, 5 s at most.
    """
    found = built.strip() or _of_checkout(root / ".git")
    return found if _COMMIT.fullmatch(found) else None


def _of_checkout(repository: Path) -> str:
    if not repository.exists():
        return ""  # Installed, maybe within somebody else's checkout.
    try:
        done = subprocess.run(
            ("git", f"--git-dir={repository}", "rev-parse", "HEAD"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # Without git it is not known, which is no reason not to start.
    return done.stdout.strip()
