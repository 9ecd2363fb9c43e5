"""What a caller may name: never anything outside of its own folder."""

import errno
import os
import threading
from pathlib import Path

import pytest

from app.coordinator.data.drive import BadUrl, Drive
from app.coordinator.identity.access import Access, Grant
from app.files.beneath import LeadsOut, open_beneath


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    for tenant in ("t", "other"):
        (tmp_path / "drive" / tenant / "folder").mkdir(parents=True)
        (tmp_path / "drive" / tenant / "file").write_text(f"of {tenant}")
    (tmp_path / "secret").write_text("secret")
    return Drive(tmp_path / "drive")


def read(drive: Drive, path: str, access: Access | None = None) -> str:
    with drive.filesystem(access or Access("t")).open(f"scaidrive://t/{path}") as file:
        content: bytes = file.read()
    return content.decode()


def test_links_that_stay_inside_are_followed(drive: Drive) -> None:
    root = drive.tenant_root("t")
    os.symlink("file", root / "a")
    os.symlink("../a", root / "folder" / "b")
    os.symlink("folder/../folder", root / "c")
    assert read(drive, "c/b") == "of t"
    assert drive.find(Access("t"), "scaidrive://t/c/b") == (root / "file").resolve()


@pytest.mark.parametrize(
    "target", ["../other/file", "../../secret", "/etc/passwd", "folder/../../other/file", ".."]
)
def test_links_that_lead_out_are_refused(drive: Drive, target: str) -> None:
    os.symlink(target, drive.tenant_root("t") / "link")
    for url in ("scaidrive://t/link", "scaidrive://t/link/file"):
        with pytest.raises(BadUrl, match="leads outside your tenant's folder") as caught:
            drive.find(Access("t"), url)
        assert str(drive.root) not in str(caught.value)
        with pytest.raises(BadUrl, match="leads out"):
            drive.destination(Access("t"), url).check_destination()
        with pytest.raises(BadUrl, match="leads out"):
            drive.destination(Access("t"), url).open_destination()


def test_an_absolute_link_is_refused_even_into_the_folder(drive: Drive) -> None:
    os.symlink(drive.tenant_root("t") / "file", drive.tenant_root("t") / "link")
    with pytest.raises(BadUrl, match="leads out"):
        read(drive, "link")


def test_links_in_circles(drive: Drive) -> None:
    os.symlink("b", drive.tenant_root("t") / "a")
    os.symlink("a", drive.tenant_root("t") / "b")
    with pytest.raises(BadUrl, match="cannot be reached"):
        read(drive, "a")


@pytest.mark.parametrize(
    "url",
    [
        "scaidrive://other/file",
        "scaidrive://t/../other/file",
        "scaidrive://t//file",
        "scaidrive://t/./file",
        "scaidrive://t/",
        "scaidrive://t",
        "scaidrive:///file",
        "scaidrive://t/fi\0le",
        "scaidrive://t/" + "x" * 5000,
        "SCAIDRIVE://t/file",
        "file:///etc/passwd",
        "/etc/passwd",
        "",
    ],
)
def test_what_is_no_url_of_the_tenant(drive: Drive, url: str) -> None:
    with pytest.raises(BadUrl) as caught:
        drive.find(Access("t"), url)
    assert str(drive.root) not in str(caught.value)


def test_an_instance_is_for_one_access_only(drive: Drive) -> None:
    mine, theirs = drive.filesystem(Access("t")), drive.filesystem(Access("other"))
    assert mine is not theirs
    with pytest.raises(BadUrl):
        mine.open("scaidrive://other/file")
    assert mine.ls("scaidrive://t/folder") == []
    assert mine.info("scaidrive://t/file")["type"] == "file"


def test_a_link_that_changes_meanwhile_never_leads_out(drive: Drive) -> None:
    """Another process swaps a link to and fro: every read is refused, or of the tenant's own."""
    root = drive.tenant_root("t")
    os.symlink("folder", root / "swap")
    (root / "folder" / "file").write_text("of t")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in ("../other", "folder"):
                os.symlink(target, root / ".new")
                os.replace(root / ".new", root / "swap")

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(read(drive, "swap/file"))
            except BadUrl:
                seen.add("refused")
    finally:
        stop.set()
        swapping.join()
    assert seen <= {"of t", "refused"}


def test_a_grant_covers_what_it_names_and_all_below(drive: Drive) -> None:
    grant = Grant.give(
        tenant_id="t", user_id="u", job_id="j", urls=["scaidrive://t/folder", "", "gpt2"]
    )
    (drive.tenant_root("t") / "folder" / "inside").write_text("inside")
    (drive.tenant_root("t") / "folder-2").write_text("beside")
    access = grant.access("j")
    assert read(drive, "folder/inside", access) == "inside"
    assert drive.destination(access, "scaidrive://t/jobs/j/output")
    for path in ("file", "folder-2", "jobs/other/output"):
        with pytest.raises(BadUrl, match="not covered by the job's grant"):
            drive.destination(access, f"scaidrive://t/{path}")
    with pytest.raises(ValueError, match="not for k"):
        grant.access("k")


def test_dots_that_lead_above_the_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for parts in (["..", "x"], ["a", "..", ".."]):
        with pytest.raises(LeadsOut):
            open_beneath(tmp_path, parts)


def test_a_destination_is_a_directory_that_is_there_or_a_free_name(drive: Drive) -> None:
    access = Access("t")
    (drive.tenant_root("t") / "folder" / "pipe").touch()
    for path, name in (("folder", ""), ("folder/new", "new"), ("a/b/c", "c")):
        place = drive.destination(access, f"scaidrive://t/{path}")
        place.check_destination()
        directory, free = place.open_destination()
        with directory:
            assert free == name
    assert (drive.tenant_root("t") / "a" / "b").is_dir()
    for path in ("file", "file/below", "folder/pipe", "folder/pipe/below"):
        place = drive.destination(access, f"scaidrive://t/{path}")
        for look in (place.check_destination, place.open_destination):
            with pytest.raises(BadUrl, match="is not a directory and cannot become one"):
                look()


def test_what_no_job_can_change_of_a_path_ends_with_its_checkpoints(drive: Drive) -> None:
    job = drive.tenant_root("t") / "jobs" / "job-0123456789abcdef0123" / "checkpoints"
    assert drive.unchangeable(job / "step-1" / "model") == job
    assert drive.unchangeable(job) == job
    other = drive.tenant_root("t") / "mine" / "checkpoints" / "step-1"
    assert drive.unchangeable(other) == other


def test_a_link_among_checkpoints_does_not_leave_them(drive: Drive) -> None:
    access = Access("t")
    root = drive.tenant_root("t")
    checkpoints = root / "jobs" / "job-0123456789abcdef0123" / "checkpoints"
    (checkpoints / "step-1").mkdir(parents=True)
    (checkpoints / "step-1" / "file").write_text("of a checkpoint")
    os.symlink("step-1", checkpoints / "latest")
    os.symlink("../../../folder", checkpoints / "out")
    os.symlink("../..", checkpoints / "step-1" / "up")
    os.symlink("jobs/job-0123456789abcdef0123/checkpoints", root / "mine")
    url = "scaidrive://t/jobs/job-0123456789abcdef0123/checkpoints"
    assert read(drive, f"{url.removeprefix('scaidrive://t/')}/latest/file") == "of a checkpoint"
    assert read(drive, "mine/latest/file") == "of a checkpoint"
    for path in (f"{url}/out", f"{url}/step-1/up", f"{url}/out/new", "scaidrive://t/mine/out"):
        with pytest.raises(BadUrl, match="outside a job's checkpoints"):
            drive.find(access, path)
        with pytest.raises(BadUrl, match="outside a job's checkpoints"):
            drive.destination(access, path).open_destination()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_limit_of_the_machine_says_nothing_about_a_url(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("app.coordinator.data.drive.open_beneath", refused)
    monkeypatch.setattr("app.coordinator.data.drive.reach_beneath", refused)
    place = drive.destination(Access("t"), "scaidrive://t/folder")
    for reach in (place.open, place.open_destination, place.check_destination):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            reach()
        assert caught.value.errno == number
