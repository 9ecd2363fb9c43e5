"""The drive in an object store, as a coordinator asks it."""

import threading
from pathlib import Path

import pytest

pytest.importorskip("s3fs")

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.data.data_files import data_files
from app.coordinator.data.drive import BadUrl
from app.coordinator.data.fetched_sources import fetched
from app.coordinator.errors import FailedPrecondition, InvalidArgument
from app.coordinator.execution.bucket.artefacts import BucketAtlas
from app.coordinator.execution.bucket.checkpoints import look
from app.coordinator.identity.access import Access
from app.coordinator.trainers.models import adapter_base
from app.files.directory import Directory
from app.files.walking import Limits
from app.objects.s3 import S3Store

ACME = Access("acme")
WANTED = threading.Event()
JOB = f"job-{'0' * 20}"


@pytest.fixture
def drive(store: S3Store, tmp_path: Path) -> BucketDrive:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "file").write_text("here")
    return BucketDrive(tmp_path / "root", store=store, allowed=[allowed])


def test_what_is_there_is_told_and_nothing_of_another_tenant(
    drive: BucketDrive, store: S3Store, tmp_path: Path
) -> None:
    for key in ("acme/data/a.jsonl", "acme/data/deep/b.jsonl", "acme/data/_c", "rival/secret"):
        store.write(key, b"{}\n")
    drive.require(ACME, "path", "scaidrive://acme/data", kind="directory")
    drive.require(ACME, "path", "scaidrive://acme/data/a.jsonl", kind="file")
    drive.require(ACME, "path", str(tmp_path / "allowed" / "file"), kind="file")
    for url in ("scaidrive://acme/dat", "scaidrive://acme/data/a", "scaidrive://acme/none"):
        with pytest.raises(FailedPrecondition, match="does not exist"):
            drive.require(ACME, "path", url)
    with pytest.raises(FailedPrecondition, match="is not a file"):
        drive.require(ACME, "path", "scaidrive://acme/data", kind="file")
    for url in ("scaidrive://rival/secret", "scaidrive://acme/../rival/secret", "/etc/passwd"):
        with pytest.raises(InvalidArgument):
            drive.require(ACME, "path", url)
    with pytest.raises(BadUrl, match="grant"):
        drive.tree(Access("acme", ("scaidrive://acme/other",)), "scaidrive://acme/data")
    files = drive.filesystem(ACME)
    found = data_files(files, "scaidrive://acme/data")
    assert [(each.name, each.size_bytes) for each in found] == [("a.jsonl", 3), ("deep/b.jsonl", 3)]
    with files.open("scaidrive://acme/data/a.jsonl") as file:
        assert file.read(2) == b"{}"
    with pytest.raises(BadUrl):
        files.open("scaidrive://acme/data")


def test_small_files_of_a_model_are_read_without_the_rest(
    drive: BucketDrive, store: S3Store
) -> None:
    store.write("acme/model/adapter_config.json", b'{"base_model_name_or_path": "base"}')
    store.write("acme/model/weights", b"x")
    assert adapter_base(drive, ACME, "scaidrive://acme/model") == "base"
    assert adapter_base(drive, ACME, "scaidrive://acme/none") == ""


def publish(drive: BucketDrive, root: Path, name: str, content: str) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "weights").write_text(content)
    with Directory.open(root) as source:
        drive.checkpoints("acme", JOB).publish(source, name, WANTED, limits=Limits())


def test_a_checkpoint_is_there_when_it_is_whole(
    drive: BucketDrive, store: S3Store, tmp_path: Path
) -> None:
    url = f"scaidrive://acme/jobs/{JOB}/checkpoints/step-1"
    store.write(f"acme/jobs/{JOB}/checkpoints/step-1/weights", b"half")
    with pytest.raises(BadUrl, match="does not exist"):
        drive.check(ACME, url)
    publish(drive, tmp_path, "step-1", "whole")
    drive.check(ACME, url)
    drive.check(ACME, f"{url}/weights")
    with pytest.raises(BadUrl):
        drive.check(ACME, f"{url}/other")
    assert [member.path for member in drive.tree(ACME, url)] == ["weights"]
    assert [member.path for member in drive.tree(ACME, f"{url}/weights")] == [""]


def test_looks_number_checkpoints_and_remove_those_over_the_number_to_keep(
    drive: BucketDrive, tmp_path: Path
) -> None:
    trees = drive.checkpoints("acme", JOB)
    assert look(trees, (), keep=2) == ()
    publish(drive, tmp_path, "step-1", "1")
    first = look(trees, (), keep=2)
    assert [(c.checkpoint_id, c.step, c.size_bytes, c.sequence) for c in first] == [
        ("step-1", 1, 1, 1)
    ]
    assert look(trees, first, keep=2) == first
    publish(drive, tmp_path, "step-2", "22")
    second = look(trees, first, keep=2)
    publish(drive, tmp_path, "step-1", "111")
    third = look(trees, second, keep=2)
    assert [(c.checkpoint_id, c.size_bytes, c.sequence) for c in third] == [
        ("step-2", 2, 2),
        ("step-1", 3, 3),
    ]
    publish(drive, tmp_path, "step-3", "3")
    fourth = look(trees, third, keep=2)
    assert [c.checkpoint_id for c in fourth] == ["step-1", "step-3"]
    assert [each.name for each in trees.names()] == ["step-1", "step-3"]


def test_a_model_has_versions_and_a_job_makes_one(drive: BucketDrive, tmp_path: Path) -> None:
    atlas = BucketAtlas(drive)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_text("w")

    def register(job_id: str) -> str:
        with Directory.open(tmp_path / "made") as made:
            return atlas.register(
                tenant_id="acme",
                name="model",
                files=made,
                job_id=job_id,
                about={"steps": 1},
                limits=Limits(),
                abandoned=WANTED,
            )

    with pytest.raises(BadUrl):
        drive.pinned(ACME, "scaiatlas://acme/model")
    assert register("one") == "scaiatlas://acme/model@1"
    assert register("two") == "scaiatlas://acme/model@2"
    assert register("one") == "scaiatlas://acme/model@1"
    assert drive.pinned(ACME, "scaiatlas://acme/model") == "scaiatlas://acme/model@2"
    drive.require(ACME, "model", "scaiatlas://acme/model@1", kind="directory")
    with pytest.raises(FailedPrecondition):
        drive.require(ACME, "model", "scaiatlas://acme/model@3")
    tree = drive.tree(ACME, "scaiatlas://acme/model")
    assert [member.path for member in tree] == ["weights"]


async def test_sources_are_fetched_to_be_checked_and_go_again(
    drive: BucketDrive, store: S3Store
) -> None:
    store.write("acme/data/a.jsonl", b"{}\n")
    store.write("acme/one.jsonl", b"[]\n")
    urls = ["scaidrive://acme/data", "scaidrive://acme/one.jsonl", "scaidrive://acme/none", "x"]
    async with fetched(drive, ACME, urls, limit=6) as local:
        assert (local.root / "acme" / "data" / "a.jsonl").read_bytes() == b"{}\n"
        assert (local.root / "acme" / "one.jsonl").read_bytes() == b"[]\n"
        root = local.root
    assert not root.exists()
    with pytest.raises(FailedPrecondition, match="cache_bytes"):
        async with fetched(drive, ACME, urls, limit=5):
            pass
    assert list(drive.root.glob(".checked-*")) == []


@pytest.mark.parametrize(
    "manifest", [None, b"{}", b"[]", b'"text"', b"no JSON", b'{"job_id": 1}', b"[" * 100_000]
)
def test_a_version_that_others_have_put_there_is_no_job_s_own(
    drive: BucketDrive, store: S3Store, tmp_path: Path, manifest: bytes | None
) -> None:
    folder = ".atlas/acme/model/"
    store.write(f"{folder}4/files/weights", b"theirs")
    if manifest is not None:
        store.write(f"{folder}4/manifest.json", manifest)
    # No version is called so.
    for name in ("4", "007", "9" * 400, "\u0664", "latest"):
        store.write(f"{folder}.complete/{name}", b'{"files": []}')
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_text("w")
    with Directory.open(tmp_path / "made") as made:
        url = BucketAtlas(drive).register(
            tenant_id="acme",
            name="model",
            files=made,
            job_id="one",
            about={},
            limits=Limits(),
            abandoned=WANTED,
        )
    assert url == "scaiatlas://acme/model@5"
