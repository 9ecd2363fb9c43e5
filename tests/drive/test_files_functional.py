"""Files of a tenant: stored, read, listed and deleted over HTTP."""

import os
from pathlib import Path

from app.scaikey.permissions import Permission
from tests.drive.asking import DriveClient
from tests.drive.conftest import Served

CONTENT = bytes(range(256)) * 40


async def test_a_file_is_stored_read_listed_and_deleted(served: Served) -> None:
    acme = served.acme
    stored = await acme.put("data/raw/a.bin", CONTENT)
    assert stored.status == 201
    assert (served.folder / "data" / "raw" / "a.bin").read_bytes() == CONTENT
    assert stored.data["path"] == "data/raw/a.bin"
    assert stored.data["uri"] == "scaidrive://acme/data/raw/a.bin"
    assert stored.data["size_bytes"] == len(CONTENT)
    assert stored.data["etag"] == stored.headers["ETag"]

    read = await acme.get("data/raw/a.bin")
    assert (read.status, read.body) == (200, CONTENT)
    assert read.headers["ETag"] == stored.headers["ETag"]
    assert read.headers["Content-Length"] == str(len(CONTENT))

    head = await acme.head("data/raw/a.bin")
    assert (head.status, head.body) == (200, b"")
    same = ("ETag", "Content-Length", "Content-Type", "Last-Modified", "Content-Disposition")
    assert [head.headers[name] for name in same] == [read.headers[name] for name in same]

    listed = (await acme.get("data/raw")).data
    assert listed["path"] == "data/raw"
    assert listed["uri"] == "scaidrive://acme/data/raw"
    assert listed["next_page_token"] == ""
    [entry] = listed["entries"]
    assert entry == {
        "name": "a.bin",
        "kind": "file",
        "size_bytes": len(CONTENT),
        "modified_at": stored.data["modified_at"],
        "etag": stored.headers["ETag"],
        "addressable": True,
    }

    assert (await acme.delete("data/raw/a.bin")).status == 204
    assert (await acme.get("data/raw/a.bin")).code == "FILE_NOT_FOUND"
    assert (await acme.delete("data/raw/a.bin")).code == "FILE_NOT_FOUND"
    assert (await acme.delete("data/raw/")).status == 204
    assert not (served.folder / "data" / "raw").exists()


async def test_a_replaced_file_is_another_version(served: Served) -> None:
    acme = served.acme
    first = await acme.put("a", b"first")
    second = await acme.put("a", b"other")
    assert (first.status, second.status) == (201, 200)
    assert first.headers["ETag"] != second.headers["ETag"]
    assert (await acme.get("a")).body == b"other"


async def test_an_empty_file_is_a_file(served: Served) -> None:
    assert (await served.acme.put("empty")).status == 201
    read = await served.acme.get("empty")
    assert (read.status, read.body, read.headers["Content-Length"]) == (200, b"", "0")


async def test_a_tenant_without_a_folder_has_an_empty_one(served: Served) -> None:
    assert await served.acme.names() == []
    assert (await served.acme.get("a")).code == "FILE_NOT_FOUND"
    assert (await served.acme.delete("a")).code == "FILE_NOT_FOUND"


async def test_a_folder_with_something_in_it_goes_only_when_that_is_said(served: Served) -> None:
    acme = served.acme
    await acme.put("a/b/c", b"1")
    await acme.put("a/d", b"2")
    refused = await acme.delete("a")
    assert (refused.status, refused.code) == (409, "FILE_CONFLICT")
    assert (await acme.delete("a?recursive=true")).status == 204
    assert await acme.names() == []
    assert (await acme.delete("")).code == "FILE_CONFLICT"


async def test_pages_have_all_entries_in_the_order_of_their_bytes(served: Served) -> None:
    served.folder.mkdir()
    names = sorted((f"f{number}" for number in range(25)), key=os.fsencode)
    for name in (*names, "Ä", "z"):
        (served.folder / name).touch()
    found: list[str] = []
    token = ""
    while True:
        page = (await served.acme.get(f"?page_size=10&page_token={token}")).data
        found += [entry["name"] for entry in page["entries"]]
        assert len(page["entries"]) <= 10
        token = page["next_page_token"]
        if not token:
            break
    assert found == [*names, "z", "Ä"]
    assert (await served.acme.get("?page_token=%FF")).status == 422
    assert (await served.acme.get("?page_size=1001")).code == "VALIDATION_ERROR"


NAMES = [
    ("%C3%A4%20b", "ä b"),
    ("a+b", "a+b"),
    ("%2e%2e%2e", "..."),
    ("%252e%252e", "%2e%2e"),
    ("%23%3F%25", "#?%"),
    ("%0A%1B", "\n\x1b"),
    ("a%5Cb", "a\\b"),
    ("x" * 255, "x" * 255),
    ("%E2%80%AE", "\u202e"),
]


async def test_a_name_is_decoded_once(served: Served) -> None:
    for written, name in NAMES:
        assert (await served.acme.put(written, b"1")).status == 201
        assert [each.name for each in served.folder.iterdir()] == [name]
        assert (await served.acme.get(written)).body == b"1"
        assert await served.acme.names() == [name]
        assert (await served.acme.delete(written)).status == 204


NO_NAMES = [
    *("..", ".", "a/../b", "a/./b", "%2e%2e", "%2E%2e/b", ".%2e", "a/%2e"),
    *("a//b", "/a", "a%2Fb", "..%2f", "%2f", "a%00", "%00"),
    *("%ff", "a/%c3", "%zz", "%", "a%2", "x" * 256, "%ED%A0%80"),
    *("/".join("a" * 129), "/".join(["y" * 250] * 17)),
]


async def test_what_is_no_name_is_refused(served: Served) -> None:
    for written in NO_NAMES:
        (served.root / "b").write_text("another tenant's")
        (served.root / "secret").write_text("of nobody")
        for answer in (
            await served.acme.get(written),
            await served.acme.put(written, b"1"),
            await served.acme.delete(f"{written}?recursive=true"),
        ):
            assert (answer.status, answer.code) == (400, "FILE_NAME_INVALID")
        assert sorted(each.name for each in served.root.iterdir()) == ["b", "secret"]


async def test_a_file_and_a_folder_are_not_taken_for_each_other(served: Served) -> None:
    acme = served.acme
    await acme.put("a/b", b"1")
    for answer in (await acme.put("a", b"2"), await acme.put("a/b/c", b"2")):
        assert (answer.status, answer.code) == (409, "FILE_CONFLICT")
    assert (await acme.put("a/", b"2")).code == "FILE_CONFLICT"
    assert (await acme.put("", b"2")).code == "FILE_CONFLICT"
    assert (await acme.get("a/b/")).code == "FILE_NOT_FOUND"
    assert (await acme.delete("a/b/")).code == "FILE_NOT_FOUND"
    assert (await acme.get("a/b/c")).code == "FILE_NOT_FOUND"
    assert (await acme.get("a/b")).body == b"1"


async def test_who_may_view_reads_and_who_may_manage_writes(served: Served) -> None:
    await served.acme.put("a", b"1")
    viewer = await served.client("acme", permissions=[Permission.VIEW.value])
    assert (await viewer.get("a")).body == b"1"
    assert (await viewer.put("a", b"2")).status == 403
    assert (await viewer.delete("a")).status == 403
    manager = await served.client("acme", permissions=[Permission.MANAGE.value])
    assert (await manager.get("a")).status == 403
    assert (await manager.head("a")).status == 403
    assert (await manager.put("a", b"3")).status == 200
    assert (await manager.delete("a")).status == 204
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        assert (await served.acme.ask(method, "/v1/drive/a", token=None)).status == 401


async def test_a_job_s_checkpoints_are_read_and_not_changed(served: Served) -> None:
    checkpoint = served.folder / "jobs" / "job-1" / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model").write_bytes(b"weights")
    inside = "jobs/job-1/checkpoints/step-1/model"
    assert (await served.acme.get(inside)).body == b"weights"
    for answer in (
        await served.acme.put(inside, b"2"),
        await served.acme.put("jobs/job-1/checkpoints/new", b"2"),
        await served.acme.delete(inside),
        await served.acme.delete("jobs/job-1/checkpoints?recursive=true"),
        await served.acme.delete("jobs/job-1?recursive=true"),
        await served.acme.delete("jobs?recursive=true"),
    ):
        assert (answer.status, answer.code) == (409, "FILE_CONFLICT")
    assert (checkpoint / "model").read_bytes() == b"weights"
    await served.acme.put("jobs/job-1/output/a", b"1")
    assert (await served.acme.delete("jobs/job-1/output?recursive=true")).status == 204


async def test_nothing_is_left_beside_the_files(served: Served) -> None:
    await served.acme.put("a", b"1")
    await served.acme.put("a", b"2")
    await served.acme.put("b", b"3", headers={"If-Match": '"none"'})
    await served.acme.delete("a")
    staging = served.root / ".uploads" / "acme"
    left: list[Path] = [each for each in staging.iterdir() if each.name != "lock"]
    assert left == []


async def test_a_ticket_opens_its_path_once(served: Served) -> None:
    acme = served.acme
    await acme.put("a%20b/c", b"1")
    await acme.put("other", b"2")

    async def ticket(path: str, client: DriveClient = acme) -> str:
        body = {"kind": "drive", "path": path}
        url = "/v1/modules/scaimind/stream-tickets"
        answer = await client.ask("POST", url, json=body)
        assert (answer.status, answer.data["path"]) == (201, path), answer.body
        return f"?ticket={answer.data['ticket']}"

    async def opened(path: str, ticket: str) -> tuple[int, bytes]:
        answer = await acme.get(path + ticket, token=None)
        return answer.status, answer.body if answer.status == 200 else answer.code.encode()

    first = await ticket("a b/c")
    head = await acme.head("a%20b/c" + first, token=None)
    assert head.status == 401
    assert await opened("a%20b/c", first) == (200, b"1")
    assert await opened("a%20b/c", first) == (401, b"AUTH_TICKET_INVALID")
    assert await opened("other", await ticket("a b/c")) == (401, b"AUTH_TICKET_INVALID")
    assert (await opened("a%20b/", await ticket("a b")))[0] == 200
    # Of another tenant's path of the same name it opens that tenant's.
    rival = await served.client("rival")
    await rival.put("other", b"3")
    assert await opened("other", await ticket("other", rival)) == (200, b"3")
    for body in (
        {"kind": "drive", "path": "none"},
        {"kind": "drive", "path": "../a"},
        {"kind": "drive", "job_id": "job-1"},
        {"kind": "logs", "job_id": "job-1", "path": "a"},
    ):
        answer = await acme.ask("POST", "/v1/modules/scaimind/stream-tickets", json=body)
        assert answer.status in (400, 404, 422)
