"""Requests to the drive of a gateway, as they are on the wire."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yarl import URL

from tests.replicas import Answer, Replica
from tests.secrecy import written


@dataclass(frozen=True, slots=True)
class DriveClient:
    """Asks with one key."""

    gateway: Replica
    token: str

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = "",
        **options: Any,
    ) -> Answer:
        """Make a request; the path goes out as it is written. `None` is no token."""
        if isinstance(options.get("data"), bytes):
            # What aiohttp would have as one write.
            options["data"] = io.BytesIO(options["data"])
        secret = self.token if token == "" else token
        sent = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        url = URL(f"{self.gateway.server.make_url('/')}{path.lstrip('/')}", encoded=True)
        async with self.gateway.http.request(
            method, url, headers={**sent, **(headers or {})}, **options
        ) as response:
            answer = Answer(response.status, response.headers, await response.read())
        if answer.status >= 400:
            written(f"answer {answer.status} to {method} {path}", answer.body)
        return answer

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", f"/v1/drive/{path}", **options)

    async def head(self, path: str, **options: Any) -> Answer:
        return await self.ask("HEAD", f"/v1/drive/{path}", **options)

    async def put(self, path: str, data: Any = b"", **options: Any) -> Answer:
        return await self.ask("PUT", f"/v1/drive/{path}", data=data, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.ask("DELETE", f"/v1/drive/{path}", **options)

    async def names(self, path: str = "") -> list[str]:
        """The names in a folder."""
        answer = await self.get(path)
        assert answer.status == 200, answer.body
        return [entry["name"] for entry in answer.data["entries"]]
