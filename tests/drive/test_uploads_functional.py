"""Resumable uploads, as the protocol has them (https://tus.io/protocols/resumable-upload)."""

import base64
import hashlib
import os
import time

import pytest

from app.drive.folder import upload_files
from app.drive.settings import DriveSettings
from app.scaikey.permissions import Permission
from tests.drive.conftest import Served
from tests.drive.tus import OCTETS, UPLOADS, Tus, metadata

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def tus(served: Served) -> Tus:
    return Tus(served.acme)


def staged(served: Served) -> list[str]:
    return sorted(
        each.name for each in (served.root / ".uploads" / "acme").iterdir() if each.name != "lock"
    )


async def test_a_file_comes_in_parts(served: Served, tus: Tus) -> None:
    url = await tus.started("data/a.bin", len(CONTENT))
    assert await tus.offset(url) == 0
    first = await tus.patch(url, 0, CONTENT[:1000])
    assert (first.status, first.headers["Upload-Offset"]) == (204, "1000")
    assert not (served.folder / "data").exists()
    last = await tus.patch(url, 1000, CONTENT[1000:])
    assert (last.status, last.headers["Upload-Offset"]) == (204, str(len(CONTENT)))
    assert (served.folder / "data" / "a.bin").read_bytes() == CONTENT
    assert last.headers["ETag"] == (await served.acme.head("data/a.bin")).headers["ETag"]
    # A client that has not heard of the end finds it.
    assert await tus.offset(url) == len(CONTENT)
    assert (await tus.patch(url, len(CONTENT), b"")).status == 204
    assert [each.rpartition(".")[2] for each in staged(served)] == ["json"]


async def test_what_the_server_can_do_is_told_to_anybody(served: Served) -> None:
    answer = await served.acme.ask("OPTIONS", UPLOADS, token=None)
    assert answer.status == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert {"creation", "expiration", "termination"} <= {
        *answer.headers["Tus-Extension"].split(",")
    }
    assert int(answer.headers["Tus-Max-Size"]) == 1024**4


async def test_another_version_of_the_protocol_is_refused(served: Served) -> None:
    answer = await served.acme.ask("POST", UPLOADS, headers={"Tus-Resumable": "0.2.2"})
    assert (answer.status, answer.headers["Tus-Version"]) == (412, "1.0.0")


async def test_the_first_part_may_come_with_the_creation(served: Served, tus: Tus) -> None:
    whole = await tus.create("whole", 4, data=b"abcd")
    assert (whole.status, whole.headers["Upload-Offset"]) == (201, "4")
    assert (served.folder / "whole").read_bytes() == b"abcd"
    part = await tus.create("part", 4, data=b"ab")
    assert (part.status, part.headers["Upload-Offset"]) == (201, "2")
    await tus.patch(part.headers["Location"], 2, b"cd")
    assert (served.folder / "part").read_bytes() == b"abcd"


async def test_an_empty_file_is_there_at_once(served: Served, tus: Tus) -> None:
    assert (await tus.create("empty", 0)).status == 201
    assert (served.folder / "empty").read_bytes() == b""


async def test_the_length_may_be_said_later(served: Served, tus: Tus) -> None:
    url = await tus.started("a", None)
    assert (await tus.head(url)).headers["Upload-Defer-Length"] == "1"
    await tus.patch(url, 0, b"ab")
    assert not (served.folder / "a").exists()
    assert (await tus.patch(url, 2, b"", **{"Upload-Length": "1"})).status == 413
    await tus.patch(url, 2, b"cd", **{"Upload-Length": "4"})
    assert (served.folder / "a").read_bytes() == b"abcd"


async def test_an_upload_that_is_terminated_is_gone(served: Served, tus: Tus) -> None:
    url = await tus.started("a", 4, data=b"ab")
    assert (await tus.ask("DELETE", url)).status == 204
    assert staged(served) == []
    assert (await tus.head(url)).status == 404
    assert (await tus.patch(url, 2, b"cd")).code == "UPLOAD_NOT_FOUND"
    assert (await tus.ask("DELETE", url)).code == "UPLOAD_NOT_FOUND"


async def test_what_does_not_continue_an_upload_is_refused(served: Served, tus: Tus) -> None:
    url = await tus.started("a", 4, data=b"ab")
    refused = {
        "UPLOAD_OFFSET_CONFLICT": await tus.patch(url, 0, b"abcd"),
        "PAYLOAD_TOO_LARGE": await tus.patch(url, 2, b"cde"),
        "UNSUPPORTED_MEDIA_TYPE": await tus.patch(url, 2, b"cd", **{"Content-Type": "text/plain"}),
        "MALFORMED_REQUEST": await tus.patch(url, 2, b"cd", **{"Upload-Offset": "two"}),
    }
    assert {code: answer.code for code, answer in refused.items()} == {
        each: each for each in refused
    }
    assert await tus.offset(url) == 2

    async def chunks() -> object:
        yield b"cd"
        yield b"e"

    assert (await tus.patch(url, 2, chunks())).code == "PAYLOAD_TOO_LARGE"
    assert await tus.offset(url) == 2


IMPOSSIBLE: list[tuple[dict[str, str], int]] = [
    ({"Upload-Length": "4"}, 400),
    ({"Upload-Length": "4", "Upload-Metadata": metadata(name="a")}, 400),
    ({"Upload-Metadata": metadata(path="a")}, 400),
    ({"Upload-Length": "-1", "Upload-Metadata": metadata(path="a")}, 400),
    ({"Upload-Length": "9" * 30, "Upload-Metadata": metadata(path="a")}, 400),
    ({"Upload-Length": "4", "Upload-Metadata": "path !"}, 400),
    ({"Upload-Length": "4", "Upload-Metadata": "path //8="}, 400),
    ({"Upload-Length": "4", "Upload-Metadata": metadata(path="../a")}, 400),
    ({"Upload-Length": "4", "Upload-Metadata": metadata(path="/etc/passwd")}, 400),
    ({"Upload-Length": "4", "Upload-Metadata": metadata(path="a\0")}, 400),
    ({"Upload-Length": "4", "Upload-Metadata": metadata(path="a/")}, 409),
    ({"Upload-Length": "4", "Upload-Metadata": metadata(path="jobs/j/checkpoints/a")}, 409),
    ({"Upload-Length": "4", "Upload-Defer-Length": "1"}, 400),
    ({"Upload-Length": str(2**50), "Upload-Metadata": metadata(path="a")}, 507),
]


async def test_an_upload_that_cannot_be_is_refused_at_once(
    tus: Tus,
) -> None:
    for headers, status in IMPOSSIBLE:
        assert (await tus.ask("POST", UPLOADS, headers=headers)).status == status


async def test_a_body_that_does_not_hash_to_its_checksum_is_forgotten(
    served: Served, tus: Tus
) -> None:
    url = await tus.started("a", 4, data=b"ab")
    digest = base64.b64encode(hashlib.sha1(b"cd").digest()).decode()
    wrong = await tus.patch(url, 2, b"cX", **{"Upload-Checksum": f"sha1 {digest}"})
    assert (wrong.status, wrong.code) == (460, "UPLOAD_CHECKSUM_MISMATCH")
    assert await tus.offset(url) == 2
    assert (await tus.patch(url, 2, b"cd", **{"Upload-Checksum": "md4 AAAA"})).status == 400
    right = await tus.patch(url, 2, b"cd", **{"Upload-Checksum": f"sha1 {digest}"})
    assert right.status == 204
    assert (served.folder / "a").read_bytes() == b"abcd"


async def test_a_client_that_cannot_patch_says_so(served: Served, tus: Tus) -> None:
    url = await tus.started("a", 4, data=b"ab")
    headers = {"Upload-Offset": "2", "Content-Type": OCTETS, "X-HTTP-Method-Override": "PATCH"}
    assert (await tus.ask("POST", url, data=b"cd", headers=headers)).status == 204
    assert (served.folder / "a").read_bytes() == b"abcd"
    other = await tus.started("b", 4)
    override = {"X-HTTP-Method-Override": "DELETE"}
    assert (await tus.ask("POST", other, headers=override)).status == 204
    assert (await tus.head(other)).status == 404
    assert (await tus.ask("POST", other)).status == 405


async def test_a_version_that_is_not_there_any_more_is_not_replaced(
    served: Served, tus: Tus
) -> None:
    first = await served.acme.put("a", b"first")
    url = await tus.started("a", 4, headers={"If-Match": first.headers["ETag"]})
    await served.acme.put("a", b"second")
    last = await tus.patch(url, 0, b"abcd")
    assert (last.status, last.code) == (412, "PRECONDITION_FAILED")
    assert (served.folder / "a").read_bytes() == b"second"
    absent = await tus.create("a", 4, headers={"If-None-Match": "*"})
    assert absent.code == "PRECONDITION_FAILED"


async def test_only_its_tenant_has_an_upload(served: Served, tus: Tus) -> None:
    url = await tus.started("a", 4, data=b"ab")
    rival = Tus(await served.client("rival"))
    none = UPLOADS + "x" * 22
    for there in (url, none):
        assert (await rival.head(there)).status == 404
        assert (await rival.patch(there, 2, b"cd")).code == "UPLOAD_NOT_FOUND"
        assert (await rival.ask("DELETE", there)).code == "UPLOAD_NOT_FOUND"
    viewer = Tus(await served.client("acme", permissions=[Permission.VIEW.value]))
    assert (await viewer.head(url)).status == 403
    assert (await viewer.create("b", 1)).status == 403
    assert await tus.offset(url) == 2


async def test_all_that_has_come_is_a_file_even_if_nobody_was_there_at_the_end(
    served: Served, tus: Tus
) -> None:
    url = await tus.started("a", 4)
    # As after a crash between the last byte and the file's place.
    data = served.root / ".uploads" / "acme" / f"{url.rpartition('/')[2]}.data"
    data.write_bytes(b"abcd")
    assert await tus.offset(url) == 4
    assert (served.folder / "a").read_bytes() == b"abcd"


async def test_a_file_in_its_place_is_never_written_to_again(served: Served, tus: Tus) -> None:
    served.folder.mkdir()
    url = await tus.started("a", 8, data=b"abcd")
    # As after a crash between the file's place and the note of it.
    name = url.rpartition("/")[2]
    (served.root / ".uploads" / "acme" / f"{name}.data").rename(served.folder / "a")
    assert await tus.offset(url) == 8
    assert (await tus.patch(url, 4, b"efgh")).code == "UPLOAD_OFFSET_CONFLICT"
    assert (served.folder / "a").read_bytes() == b"abcd"


async def test_an_upload_goes_a_day_after_its_last_byte(
    served: Served, tus: Tus, drive_settings: DriveSettings
) -> None:
    old, new = [await tus.started(name, 4, data=b"ab") for name in ("old", "new")]
    folder = served.root / ".uploads" / "acme"

    def age(url: str, seconds: float) -> None:
        moment = time.time() - seconds
        os.utime(folder / f"{url.rpartition('/')[2]}.data", (moment, moment))

    age(old, 86_401)
    age(new, 86_000)
    assert (await tus.head(old)).status == 404
    assert (await tus.patch(old, 2, b"cd")).code == "UPLOAD_NOT_FOUND"
    await served.swept()
    assert {each.partition(".")[0] for each in staged(served)} == {new.rpartition("/")[2]}
    assert await tus.offset(new) == 2


async def test_what_a_crash_left_goes(served: Served) -> None:
    await served.acme.put("a", b"1")
    folder = served.root / ".uploads" / "acme"
    moment = time.time() - 100
    for name in ("put-.0.partial", "x.data", ".1.partial"):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (moment, moment))
    (folder / "trash-1" / "deep").mkdir(parents=True)
    (folder / "put-.2.partial").write_bytes(b"just begun")
    await served.swept()
    assert staged(served) == ["put-.2.partial"]
    assert await served.acme.names() == ["a"]


async def test_so_many_finished_uploads_are_known_the_latest(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_files, "MOST_FINISHED", 3)
    tus = Tus(served.acme)
    unfinished = await tus.started("unfinished", 5)
    urls = [await tus.started(f"{number}", 1, data=b"x") for number in range(6)]
    last = await tus.started("last", 1)
    known = [url for url in urls if (await tus.head(url)).status == 200]
    assert 1 < len(known) <= 3
    assert known == urls[-len(known) :]
    # Those that are not finished are others.
    assert await tus.offset(unfinished) == await tus.offset(last) == 0
    assert sorted(await served.acme.names()) == [str(number) for number in range(6)]
