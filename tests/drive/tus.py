"""Requests of tus 1.0.0, one by one."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.drive.asking import DriveClient
from tests.replicas import Answer

UPLOADS = "/v1/drive-uploads/"
OCTETS = "application/offset+octet-stream"


def metadata(**values: str) -> str:
    """The header `Upload-Metadata`."""
    return ",".join(
        f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items()
    )


@dataclass(frozen=True, slots=True)
class Tus:
    """A client of one tenant."""

    client: DriveClient

    async def create(
        self,
        path: str,
        length: int | None,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Start an upload."""
        said = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        body = {} if data is None else {"data": data}
        kind = {} if data is None else {"Content-Type": OCTETS}
        return await self.ask(
            "POST",
            UPLOADS,
            headers={**said, "Upload-Metadata": metadata(path=path), **kind, **(headers or {})},
            **body,
        )

    async def started(self, path: str, length: int | None, **options: Any) -> str:
        """Start an upload; its URL."""
        answer = await self.create(path, length, **options)
        assert answer.status == 201, answer.body
        return answer.headers["Location"]

    async def patch(self, url: str, offset: int, data: Any, **headers: str) -> Answer:
        """Go on with it."""
        return await self.ask(
            "PATCH",
            url,
            data=data,
            headers={"Upload-Offset": str(offset), "Content-Type": OCTETS, **headers},
        )

    async def head(self, url: str) -> Answer:
        """Ask how far it is."""
        return await self.ask("HEAD", url)

    async def offset(self, url: str) -> int:
        """How far it is."""
        answer = await self.head(url)
        assert answer.status == 200
        return int(answer.headers["Upload-Offset"])

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Answer:
        """Make a request of the protocol."""
        answer = await self.client.ask(
            method, path, headers={"Tus-Resumable": "1.0.0", **(headers or {})}, **options
        )
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        return answer
