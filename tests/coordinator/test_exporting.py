"""Conversions in workers: what they can read, and what is believed of what they say."""

import os
import tarfile
import threading
from pathlib import Path

import pytest

from app.coordinator.data.conversion import conversion as exporting
from app.coordinator.data.conversion.conversion import Converter
from app.coordinator.data.conversion.errors import CannotConvert
from app.coordinator.isolation.system_paths import system_paths
from app.coordinator.storage.job_directory import JobDir
from app.files.copying import LeftOut
from app.files.walking import Limits
from tests.coordinator.garbling_worker import SAYS


@pytest.fixture
def directory(tmp_path: Path) -> JobDir:
    directory = JobDir(tmp_path / "data" / "jobs" / "job-1")
    directory.output.mkdir(parents=True)
    return directory


@pytest.fixture
def converter(tmp_path: Path) -> Converter:
    return Converter(
        readable=system_paths([tmp_path / "data"]),
        memory_bytes=1024**3,
        limits=Limits(entries=1000, size_bytes=1024**2),
    )


def names(converter: Converter, directory: JobDir) -> tuple[list[str], list[LeftOut]]:
    """What is in the archive of a job's output, and what is not."""
    with (
        converter.converted("tar.gz", directory.output, directory, threading.Event()) as made,
        made[0].open_file("model.tar.gz") as file,
        tarfile.open(fileobj=file) as archive,
    ):
        return archive.getnames(), made[1].left_out


def test_what_was_left_out_is_told_and_nothing_is_left_behind(
    converter: Converter, directory: JobDir
) -> None:
    (directory.output / "model").write_text("a model")
    os.symlink("/etc/passwd", directory.output / "link")
    # What a crash left, or somebody laid there.
    os.symlink("/etc", directory.export)
    assert names(converter, directory) == (["model"], [LeftOut("link", "symbolic link")])
    assert os.listdir(directory.path) == ["output"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of others")
def test_artefacts_that_a_jobs_own_user_kept_to_itself_are_converted(
    converter: Converter, directory: JobDir
) -> None:
    inner = directory.output / "inner"
    inner.mkdir(0o700)
    (inner / "model").write_text("a model")
    (inner / "model").chmod(0o600)
    for path in (directory.output, inner, inner / "model"):
        os.chown(path, 20_001, 20_001)
    directory.output.chmod(0o700)
    assert names(converter, directory) == (["inner", "inner/model"], [])


@pytest.mark.parametrize("what", SAYS)
def test_a_worker_that_was_taken_over_is_not_believed(
    converter: Converter, directory: JobDir, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(exporting, "WORKER", "tests.coordinator.garbling_worker")
    with (
        pytest.raises(CannotConvert) as caught,
        converter.converted(what, directory.output, directory, threading.Event()),
    ):
        pass
    text = str(caught.value)
    assert text.startswith(f"Its artefacts cannot be exported as {what}: ")
    assert text.isprintable()
    if what == "escapes":
        assert "a\\x1b[31m\\nb" in text
    assert os.listdir(directory.path) == ["output"]
