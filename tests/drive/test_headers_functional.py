"""Headers with bytes that are not ASCII."""

import asyncio

import pytest

from tests.drive.conftest import Served
from tests.drive.tus import Tus

POST = "POST /v1/drive-uploads/"
METADATA = b"Upload-Metadata: path Zg==\r\n"
LENGTH = b"Upload-Length: 1\r\n"
NOT_ASCII = (b"\xff", b"\xc3\xa9")


async def answered(served: Served, request: str, headers: bytes, body: bytes = b"") -> bytes:
    """The whole answer to a request whose headers go out as they are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.gateway.server.port)
    writer.write(
        f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTus-Resumable: 1.0.0\r\n"
        f"Authorization: Bearer {served.acme.token}\r\nContent-Length: {len(body)}\r\n".encode()
        + headers
        + b"\r\n"
        + body
    )
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("byte", NOT_ASCII)
@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        (POST, LENGTH + b"Upload-Metadata: path Zg==,a%s Zg==\r\n"),
        (POST, LENGTH + b"Upload-Metadata: path Zg==,a Zg=%s\r\n"),
        (POST, LENGTH + METADATA + b'If-Match: "%s"\r\n'),
        (POST, LENGTH + METADATA + b'If-None-Match: "a", "%s"\r\n'),
        ("PUT /v1/drive/a", b'If-Match: "%s"\r\n'),
        ("PUT /v1/drive/a", b'If-None-Match: "%s"\r\n'),
        ("GET /v1/drive/", b'If-None-Match: "%s"\r\n'),
        ("DELETE /v1/drive/a", b'If-Match: "%s"\r\n'),
    ],
)
async def test_bytes_that_are_not_ascii_are_refused(
    served: Served, request_line: str, headers: bytes, byte: bytes
) -> None:
    answer = await answered(served, request_line, headers % byte)
    # What is in the API's document as text is refused by that before.
    assert answer.split(b" ", 2)[1] in (b"400", b"422"), answer
    assert b"MALFORMED_REQUEST" in answer or b"VALIDATION_ERROR" in answer


async def test_a_checksum_that_is_not_ascii_is_refused(served: Served) -> None:
    url = await Tus(served.acme).started("a", 1)
    for value in (b"sha1 \xff", b"sha1\xff AA==", b"sha1 \xc3\xa9"):
        headers = (
            b"Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
            b"Upload-Checksum: " + value + b"\r\n"
        )
        answer = await answered(served, f"PATCH {url}", headers, b"x")
        assert answer.split(b" ", 2)[1] in (b"400", b"422"), answer


@pytest.mark.parametrize("header", ["If-Range", "Range", "If-Modified-Since", "Accept"])
async def test_a_reader_never_gets_a_fault_for_them(served: Served, header: str) -> None:
    assert (await served.acme.put("a", b"1")).status == 201
    for value in (b"\xff", b'"\xff"', b"bytes=\xff-"):
        headers = b"Range: bytes=0-\r\n" if header == "If-Range" else b""
        headers += header.encode() + b": " + value + b"\r\n"
        answer = await answered(served, "GET /v1/drive/a", headers)
        assert answer.split(b" ", 2)[1] in (b"200", b"400", b"406"), answer
