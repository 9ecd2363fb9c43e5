"""What a job reads in place stays what it was, whatever becomes of the tenant's folder."""

import threading
from pathlib import Path

import pytest

from app.coordinator.data.drive import Drive
from app.coordinator.data.pinned import PinnedFiles
from app.coordinator.identity.access import Access
from tests.coordinator.harness import running

JOB = "job-00000000000000000001"


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    drive = Drive(tmp_path)
    folder = drive.tenant_root("t") / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jsonl").write_text("first")
    (folder / "deep" / "b.jsonl").write_text("second")
    (folder / "link").symlink_to("a.jsonl")
    return drive


def pin(drive: Drive, path: str) -> Path:
    place = drive.place(Access("t"), f"scaidrive://t/{path}")
    found = PinnedFiles(drive.root).pin(JOB, place, threading.Event())
    assert found is not None
    return found


def test_a_file_that_is_replaced_or_deleted_is_read_as_it_was(drive: Drive, tmp_path: Path) -> None:
    read = pin(drive, "data/a.jsonl")
    assert (read.name, read.read_text()) == ("a.jsonl", "first")
    new = tmp_path / "new"
    new.write_text("another")
    new.rename(tmp_path / "t" / "data" / "a.jsonl")
    assert read.read_text() == "first"
    (tmp_path / "t" / "data" / "a.jsonl").unlink()
    assert read.read_text() == "first"


def test_a_folder_keeps_its_files(drive: Drive, tmp_path: Path) -> None:
    read = pin(drive, "data")
    files = tmp_path / "t" / "data"
    (files / "deep" / "b.jsonl").unlink()
    (files / "more.jsonl").write_text("later")
    found = {str(each.relative_to(read)): each for each in read.rglob("*") if each.is_file()}
    # A link is none of the files that it leads to.
    assert sorted(found) == ["a.jsonl", "deep/b.jsonl"]
    assert found["deep/b.jsonl"].read_text() == "second"


def test_a_job_is_prepared_anew_and_gives_up_what_it_had(drive: Drive, tmp_path: Path) -> None:
    pin(drive, "data/a.jsonl")
    (tmp_path / "t" / "data" / "a.jsonl").unlink()
    (tmp_path / "t" / "data" / "a.jsonl").write_text("another")
    assert pin(drive, "data/a.jsonl").read_text() == "another"
    pinned = PinnedFiles(drive.root)
    pinned.release(JOB)
    pinned.release(JOB)
    assert list((tmp_path / ".pinned").iterdir()) == []
    assert (tmp_path / "t" / "data" / "a.jsonl").read_text() == "another"


def test_a_start_forgets_what_was_left_of_jobs_that_do_not_run(
    drive: Drive, tmp_path: Path
) -> None:
    PinnedFiles(tmp_path).open(running=())
    read = pin(drive, "data")
    for left in ("job-1", "job-2"):
        (tmp_path / ".pinned" / left / "deep").mkdir(parents=True)
        (tmp_path / ".pinned" / left / "deep" / "file").touch()
    PinnedFiles(tmp_path).open(running={JOB, "job-3"})
    assert [each.name for each in (tmp_path / ".pinned").iterdir()] == [JOB]
    assert (read / "a.jsonl").read_text() == "first"


async def test_a_coordinator_forgets_them_when_it_starts(tmp_path: Path) -> None:
    left = tmp_path / "drive" / ".pinned" / JOB / "digest"
    left.mkdir(parents=True)
    (left / "file").touch()
    async with running(tmp_path) as (_, client):
        assert client.drive == tmp_path / "drive"
        assert not left.parent.exists()


def test_where_nothing_can_be_linked_it_is_read_in_place(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.coordinator.data.pinned._NO_LINK", (0,))

    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(0, "no links here")

    monkeypatch.setattr("os.link", refuses)
    for path in ("data", "data/a.jsonl"):
        place = drive.place(Access("t"), f"scaidrive://t/{path}")
        assert PinnedFiles(drive.root).pin(JOB, place, threading.Event()) is None
