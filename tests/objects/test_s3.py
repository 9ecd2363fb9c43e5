"""Objects in S3: what is there, and what each failure of a store and of a network becomes."""

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")

from app.coordinator.failures import is_passing
from app.files.copying import Abandoned
from app.files.directory import LimitReached
from app.objects import s3
from app.objects.s3 import S3Store
from app.objects.s3_entries import object_of
from app.objects.s3_errors import refusal
from app.objects.store import ChangedObject, DriveRefused, DriveUnavailable
from tests.objects.buckets import Bucket, answer, faulty, opened, write_credentials

WANTED = threading.Event()


def upload(store: S3Store, key: str, path: Path) -> None:
    with open(path, "rb") as file:
        store.upload(key, file.fileno(), WANTED)


def fetched(store: S3Store, key: str, path: Path) -> bytes:
    found = next(store.objects(key, limit=1))
    with open(path, "wb") as file:
        store.fetch(found, file.fileno(), WANTED)
    return path.read_bytes()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is sent in several parts, of the smallest size that S3 takes."""
    monkeypatch.setattr(s3, "_BLOCK", 5 * 1024 * 1024)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1024) * (11 * 1024) + b"end")
    return path


def test_what_is_written_is_listed_read_and_removed(store: S3Store, tmp_path: Path) -> None:
    store.check()
    for key in ("a/b", "a/c/d", "a/c/e", "a-b", "z ü%?#/1"):
        store.write(key, key.encode())
    store.write("a/", b"")
    assert [each.key for each in store.objects("a")] == ["a-b", "a/", "a/b", "a/c/d", "a/c/e"]
    assert [each.key for each in store.objects("a/", limit=2)] == ["a/", "a/b"]
    listing = store.listing("a/", limit=2)
    assert ([each.key for each in listing.objects], listing.folders) == (["a/b"], ["c"])
    assert list(store.listing("", limit=9).folders) == ["a", "z ü%?#"]
    with pytest.raises(LimitReached):
        store.listing("a/", limit=1)
    assert store.read("z ü%?#/1", limit=100) == "z ü%?#/1".encode()
    with pytest.raises(LimitReached):
        store.read("a/b", limit=2)
    with pytest.raises(FileNotFoundError):
        store.read("a", limit=2)
    store.remove(["a/b", "nothing/there"])
    assert [each.key for each in store.objects("a/")] == ["a/", "a/c/d", "a/c/e"]


def test_pages_of_a_long_listing_follow_one_another(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_PAGE", 5)
    names = [f"many/{number:04}" for number in range(12)]
    for name in names:
        store.write(name, b"")
    assert [each.key for each in store.objects("many/")] == names
    store.remove(names)
    assert not list(store.objects("many/"))


def test_files_of_any_size_come_back_as_they_were(
    store: S3Store, large: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path in (empty, large):
        upload(store, path.name, path)
        assert fetched(store, path.name, tmp_path / "copy") == path.read_bytes()
    with store.open(next(store.objects("large", limit=1))) as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"end"


def test_another_version_is_not_taken_for_the_one_that_was_listed(
    store: S3Store, tmp_path: Path
) -> None:
    store.write("it", b"first")
    found = next(store.objects("it"))
    reader = store.open(found)
    store.write("it", b"other")
    with open(tmp_path / "copy", "wb") as file, pytest.raises(ChangedObject):
        store.fetch(found, file.fileno(), WANTED)
    with reader, pytest.raises(ChangedObject):
        reader.read()
    store.remove(["it"])
    with pytest.raises(FileNotFoundError):
        store.open(found)


def test_what_nobody_wants_is_given_up_and_leaves_nothing(store: S3Store, large: Path) -> None:
    abandoned = threading.Event()
    abandoned.set()
    with open(large, "rb") as file, pytest.raises(Abandoned):
        store.upload("large", file.fileno(), abandoned)
    assert not list(store.objects("large"))
    answer = store.connection.call("list_multipart_uploads")
    assert not answer.get("Uploads")


def refused(do: Callable[[], object], *words: str) -> None:
    with pytest.raises(DriveRefused) as raised:
        do()
    assert not is_passing(raised.value)
    said = raised.value.strerror
    assert said is not None
    assert [word for word in words if word not in said] == []
    assert "wrong" not in said


def test_wrong_credentials_and_a_bucket_that_is_not_there_are_refused(
    bucket: Bucket, tmp_path: Path, large: Path
) -> None:
    wrong = write_credentials(tmp_path / "wrong", "AKIAWRONG", "wrong")
    with opened(bucket.place("", credentials=wrong)) as store:
        refused(store.check, "refuses its credentials")
        refused(lambda: upload(store, "large", large), "refuses its credentials")
        refused(lambda: store.write("it", b""), "refuses its credentials")
        refused(lambda: store.read("it", limit=1), "refuses its credentials")
    place = bucket.place("")
    with opened(type(place)("missing", "", place.endpoint, place.credentials)) as store:
        refused(store.check, "no bucket missing")
        refused(lambda: upload(store, "large", large), "no bucket missing")


@pytest.mark.parametrize("content", ["", "[default]\n", "no [ini", "[other]\nwrong = 1\n"])
def test_a_file_without_credentials_is_named_and_not_shown(
    bucket: Bucket, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "credentials"
    path.write_text(content)
    refused(lambda: S3Store(bucket.place("", credentials=path)), "[default]")
    refused(lambda: S3Store(bucket.place("", credentials=tmp_path / "none")), "cannot be read")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda _: answer("503 Slow Down", "SlowDown"), id="slow down"),
        pytest.param(lambda _: answer("500 Error", "InternalError"), id="internal error"),
        pytest.param(lambda _: b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n", id="a proxy's 503"),
        pytest.param(lambda _: b"garbage\r\n\r\n", id="garbage"),
        pytest.param(lambda _: 0, id="cut at once"),
    ],
)
def test_what_may_pass_is_told_apart_and_passes(
    bucket: Bucket, prefix: str, fault: Callable[[str], bytes | int | None]
) -> None:
    with faulty(bucket) as proxy, opened(bucket.place(prefix, port=proxy.port)) as store:
        proxy.fault = fault
        for do in (store.check, lambda: store.write("it", b"x")):
            with pytest.raises(DriveUnavailable) as raised:
                do()
            assert is_passing(raised.value)
            assert "secret" not in str(raised.value)
        proxy.fault = lambda _: None
        store.write("it", b"x")
        assert store.read("it", limit=1) == b"x"


@pytest.mark.parametrize(
    ("code", "error"),
    [("SlowDown", DriveUnavailable), ("AccessDenied", DriveRefused)],
)
def test_an_object_that_is_not_removed_is_told_as_any_failure(
    bucket: Bucket, prefix: str, code: str, error: type[OSError]
) -> None:
    def fault(line: str) -> bytes | None:
        if not line.startswith("POST"):
            return None
        codes = ("NoSuchKey", told) if told else ("NoSuchKey",)
        failed = "".join(f"<Error><Key>it</Key><Code>{each}</Code></Error>" for each in codes)
        body = f"<?xml version='1.0'?><DeleteResult>{failed}</DeleteResult>"
        head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/xml\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()

    with faulty(bucket) as proxy, opened(bucket.place(prefix, port=proxy.port)) as store:
        told = ""
        proxy.fault = fault
        store.remove(["it"])
        told = code
        with pytest.raises(error):
            store.remove(["it"])


@pytest.mark.parametrize("code", ["A" * 65, "AKIA/secret", "line\nbreak", ""])
def test_what_is_no_code_of_s3_is_not_told(code: str) -> None:
    told = refusal(code, "bucket")
    assert isinstance(told, DriveRefused)
    assert told.strerror is not None
    assert not code or code not in told.strerror


def test_a_store_that_asks_once_to_slow_down_is_asked_again(bucket: Bucket, prefix: str) -> None:
    with faulty(bucket) as proxy, opened(bucket.place(prefix, port=proxy.port)) as store:
        proxy.fault = lambda _: answer("503 Slow Down", "SlowDown") if len(proxy.seen) < 3 else None
        store.write("it", b"x")
        assert len(proxy.seen) >= 3


def test_an_upload_that_is_cut_leaves_what_was_there(
    bucket: Bucket, prefix: str, large: Path
) -> None:
    with faulty(bucket) as proxy, opened(bucket.place(prefix, port=proxy.port)) as store:
        store.write("it", b"former")
        proxy.fault = lambda line: 100_000 if "partNumber=2" in line else None
        with pytest.raises(DriveUnavailable):
            upload(store, "it", large)
        proxy.fault = lambda _: None
        assert store.read("it", limit=9) == b"former"


def test_an_answer_that_is_cut_is_asked_for_again(
    bucket: Bucket, prefix: str, large: Path, tmp_path: Path
) -> None:
    with faulty(bucket) as proxy, opened(bucket.place(prefix, port=proxy.port)) as store:
        upload(store, "it", large)
        cut = iter([-2_000_000])
        proxy.fault = lambda line: (
            next(cut, None) if line.startswith("GET") and "list-type" not in line else None
        )
        copy = fetched(store, "it", tmp_path / "copy")
        assert copy == large.read_bytes()


def test_a_store_that_is_not_there_may_come_back(bucket: Bucket, prefix: str) -> None:
    with faulty(bucket) as proxy:
        place = bucket.place(prefix, port=proxy.port)
    with opened(place) as store, pytest.raises(DriveUnavailable):
        store.check()


def test_children_are_told_page_by_page_in_the_order_of_keys(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_PAGE", 3)
    for key in ("a/", "a/b/1", "a/b/2", "a/b-c", "a/b", "a/b0", "a/d/e/f", "a/\u00e4", "b"):
        store.write(key, b"")
    found = [each.key for each in store.children("a/", page=9)]
    assert found == ["a/b", "a/b-c", "a/b/", "a/b0", "a/d/", "a/\u00e4"]
    for number, key in enumerate(found):
        for page in (1, 2, 9):
            behind = [each.key for each in store.children("a/", after=key, page=page)]
            assert behind == found[number + 1 :]


def test_a_listing_goes_on_behind_what_is_longer_than_any_key(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    call = store.connection.call

    def noted(name: str, **given: Any) -> dict[str, Any]:
        asked.append(given.get("StartAfter", ""))
        return call(name, **given)

    monkeypatch.setattr(store.connection, "call", noted)
    for key in ("a/b", "a/\u00e4\u00e4", "a/\u00f6"):
        store.write(key, b"")
    for ending in ("", "/"):
        behind = "a/" + "\u00e4" * 2000 + ending
        assert [each.key for each in store.children("a/", after=behind, page=9)] == ["a/\u00f6"]
    assert max(len(each.encode()) for each in asked) in (1023, 1024)


def test_an_object_that_grows_after_it_was_listed_is_not_read_whole(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("it", b"small")
    listed = next(store.objects("it"))
    store.write("it", bytes(1000))
    monkeypatch.setattr(store, "objects", lambda *_, **__: iter([listed]))
    sizes: list[int] = []
    cat = store.connection.files.cat_file

    def noted(*given: Any, **named: Any) -> bytes:
        content: bytes = cat(*given, **named)
        sizes.append(len(content))
        return content

    monkeypatch.setattr(store.connection.files, "cat_file", noted)
    with pytest.raises(LimitReached):
        store.read("it", limit=100)
    assert sizes == [101]


def test_a_part_of_an_object_is_read_as_it_comes(bucket: Bucket, prefix: str) -> None:
    content = os.urandom(3_000_000)
    with faulty(bucket) as proxy, opened(bucket.place(prefix, port=proxy.port)) as store:
        store.write("it", content)
        found = next(store.objects("it"))
        # Each request is cut, behind more than the client reads ahead (512 KiB and what comes with
        # one look at the socket): what it has not read by then is lost with the connection.
        proxy.fault = lambda line: -1_200_000 if line.startswith("GET") else None
        reader = store.reader(found, 5, len(content) - 5)
        read = bytearray()
        while block := reader.read(100_000):
            assert len(block) <= 100_000
            read += block
        assert read == content[5:-5]
        proxy.fault = lambda line: -2_000 if line.startswith("GET") else None
        reader = store.reader(found, 0, len(content))
        with pytest.raises(DriveUnavailable):
            reader.read(100_000)
        proxy.fault = lambda _: None
        reader = store.reader(found, 0, len(content))
        assert len(reader.read(10)) == 10
        # It has come already; the next request is for another version.
        reader.close()
        store.write("it", b"x" * len(content))
        with pytest.raises(ChangedObject):
            reader.read(10)
        assert store.reader(found, 7, 7).read(10) == b""
        store.remove(["it"])
        with pytest.raises(FileNotFoundError):
            store.reader(found, 0, 10).read(10)


ENTRY: dict[str, Any] = {
    "Key": "p/a",
    "Size": 1,
    "ETag": '"e"',
    "LastModified": datetime(2026, 1, 1, tzinfo=UTC),
}


@pytest.mark.parametrize(
    "change",
    [
        {"Key": "other"},
        {"Key": None},
        {"Key": "p/" + "x" * 1025},
        {"Size": -1},
        {"Size": 2**60},
        {"Size": True},
        {"Size": "1"},
        {"ETag": ""},
        {"ETag": "x" * 1000},
        {"ETag": "a\nb"},
        {"ETag": None},
        {"LastModified": "2026"},
        {"LastModified": datetime(1, 1, 1)},
    ],
    ids=str,
)
def test_what_no_store_says_of_an_object_is_not_taken(change: dict[str, Any]) -> None:
    assert object_of(ENTRY, "p/").key == "a"
    with pytest.raises(DriveUnavailable):
        object_of({**ENTRY, **change}, "p/")


def test_a_listing_that_never_ends_is_given_up(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = {"IsTruncated": True, "NextContinuationToken": "same"}
    monkeypatch.setattr(store.connection, "call", lambda *_, **__: page)
    with pytest.raises(DriveUnavailable):
        list(store.objects(""))
    monkeypatch.setitem(page, "NextContinuationToken", None)
    with pytest.raises(DriveUnavailable):
        list(store.objects(""))
