"""The environment that models are trained in, and a tiny model to train."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from app.local.example import tiny_model

ROOT: Final = Path(__file__).parents[2]
#: Names another environment than that of `scripts/venv train`.
VARIABLE: Final = "SCAIMIND_COORDINATOR_TRAINERS_PYTHON"
COMMAND: Final = "scripts/venv train"


def find_python() -> Path | None:
    """Return the Python of the environment; None if there is none yet, or is not to be used."""
    if os.environ.get("SCAIMIND_CI_WITHOUT") == "trainers":
        return None
    if named := os.environ.get(VARIABLE):
        return Path(named)
    found = subprocess.run(
        [ROOT / "scripts/venv", "train", "--ready"], stdout=subprocess.PIPE, text=True, check=False
    )
    return None if found.returncode else Path(found.stdout.strip(), "bin/python")


def has_megatron(python: Path) -> bool:
    """Whether an environment has the package megatron-core."""
    found = subprocess.run(
        [python, "-c", "import importlib.util as u; assert u.find_spec('megatron.core')"],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return not found.returncode


def make_tiny_model(python: Path) -> Path:
    """Return a folder with the example's tiny model, made at the first time and kept."""
    script = Path(tiny_model.__file__)
    made_of = script.read_bytes() + os.fsencode(python)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "scaimind")
    folder = cache / f"tiny-model-{hashlib.sha256(made_of).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as beside:
        made = Path(beside, "model")
        # torch leaves a folder in its TMPDIR.
        own = {**os.environ, "TMPDIR": beside}
        subprocess.run([python, "-P", script, made], check=True, capture_output=True, env=own)
        try:
            made.rename(folder)
        except OSError:
            # Another process of the tests was faster, and made the same.
            assert folder.is_dir()
    return folder
