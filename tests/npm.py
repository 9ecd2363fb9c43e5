"""Packages of npm that tests use: those that a folder's package-lock.json locks by their hashes."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.programs import program


def installed(folder: Path) -> Path:
    """Return a folder with `node_modules` of what `folder` locks; skips the test without npm.

    It lies outside the checkout, under the lock's digest: it is made once on a machine.
    Two tests that ask at once make it once.
    """
    npm = program("npm")
    lock = (folder / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scaimind-tests"
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"npm-{hashlib.sha256(lock).hexdigest()[:16]}"
    with (cache / "npm.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (made / "complete").exists():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, made)
            command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(command, cwd=made, check=True, capture_output=True)
            (made / "complete").touch()
    return made
