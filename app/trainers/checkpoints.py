"""Checkpoints as the coordinator looks for them: complete when they have their name.

The trainer writes into a directory beside them; a complete one is renamed to `step-<n>`.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Final

from .errors import TrainingRefused, shown

_STEP: Final = re.compile(r"([a-z_]+-)?step-(\d{1,15})")
#: What a directory needs to be gone on from.
_STATE: Final = "trainer_state.json"


def checkpoint_name(step: int, stage: str = "") -> str:
    """Return the name of the checkpoint of a step, which may be of a stage before the training
    itself."""
    return f"{stage}-step-{step}" if stage else f"step-{step}"


def publish(written: Path, directory: Path, step: int, stage: str = "") -> Path:
    """Rename what was written to the checkpoint of its step, and return where it is.

    It is on the disk before it has its name. One that is there under the name is replaced.
    Raises OSError.
    """
    _sync(written)
    place = directory / checkpoint_name(step, stage)
    if place.exists():
        old = directory / f".{place.name}.replaced.partial"
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        written.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        written.rename(place)
    _sync_directory(directory)
    return place


def prune(directory: Path, keep: int) -> list[str]:
    """Remove all checkpoints but the newest `keep` (0 keeps all); return the removed names.

    The newest is the one that was written last, as for the coordinator, which does the same
    at its next look: removing them here keeps the disk free meanwhile.
    """
    if not keep:
        return []
    found = [path for path in directory.iterdir() if _STEP.fullmatch(path.name) and path.is_dir()]
    found.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
    removed = []
    for path in found[:-keep]:
        # At once or not at all: what is half there is no checkpoint.
        aside = directory / f".{path.name}.removed.partial"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            path.rename(aside)
        except FileNotFoundError:
            continue
        shutil.rmtree(aside, ignore_errors=True)
        removed.append(path.name)
    return removed


def discard_unfinished(writing: Path) -> None:
    """Remove what an earlier run of the job began to write and could not finish."""
    shutil.rmtree(writing, ignore_errors=True)


def resumable(path: Path) -> Path:
    """Return a checkpoint that the trainer can go on from. Raises TrainingRefused."""
    if not (path / _STATE).is_file():
        raise TrainingRefused(
            f"the checkpoint {shown(path.name)} cannot be resumed: it has no {_STATE}, so no"
            " trainer wrote it. To train on from its weights name it as the base model instead"
        )
    return path


def _sync(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            descriptor = os.open(Path(folder, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_directory(Path(folder))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
