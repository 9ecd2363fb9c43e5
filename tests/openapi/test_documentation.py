"""The document and its page, as they are served and printed."""

import re
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from click.testing import CliRunner

from app.bridge.settings import UpstreamSettings
from app.cli.main import main
from app.database.settings import DatabaseSettings
from app.drive.settings import DriveSettings
from app.gateway.application import create_app
from app.gateway.settings import Settings
from app.openapi.errors import as_markdown
from tests.api.conftest import MakeClient
from tests.api.endpoints import PREFIX

ROOT = Path(__file__).parents[2]
SECRETS = ("the-deployment-secret", "the-database-password")

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client(aiohttp_client: MakeClient, tmp_path: Path) -> Client:
    """A gateway with a drive, and nothing behind it: the document needs nothing."""
    return await aiohttp_client(
        create_app(
            Settings(
                upstream=UpstreamSettings(address="127.0.0.1:1", api_secret=SECRETS[0]),
                database=DatabaseSettings(dsn=f"postgresql://u:{SECRETS[1]}@127.0.0.1:1/db"),
                drive=DriveSettings(dir=tmp_path),
            )
        )
    )


async def test_the_document_needs_no_token_and_tells_no_secret(client: Client) -> None:
    async with client.get(f"{PREFIX}/openapi.json") as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        text = await response.text()
    assert not any(secret in text for secret in SECRETS)
    assert orjson.loads(text)["openapi"] == "3.1.0"


async def test_the_document_is_sent_once(client: Client) -> None:
    async with client.get(f"{PREFIX}/openapi.json") as first:
        assert first.headers["Cache-Control"] == "no-cache"
        tag = first.headers["ETag"]
    async with client.get(f"{PREFIX}/openapi.json", headers={"If-None-Match": tag}) as again:
        assert again.status == 304
        assert again.headers["ETag"] == tag
        assert await again.read() == b""
    async with client.get(f"{PREFIX}/openapi.json", headers={"If-None-Match": '"other"'}) as other:
        assert other.status == 200


async def test_the_command_prints_what_is_served(client: Client) -> None:
    async with client.get(f"{PREFIX}/openapi.json") as response:
        served = orjson.loads(await response.read())
    printed = CliRunner().invoke(main, ["openapi"])
    assert printed.exit_code == 0
    assert orjson.loads(printed.stdout) == served


class Links(HTMLParser):
    """What a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = ""
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
        self._in_script = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        self.inline += data.strip() if self._in_script else ""


async def test_the_page_loads_from_here_alone(client: Client) -> None:
    async with client.get(f"{PREFIX}/docs") as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        policy = response.headers["Content-Security-Policy"]
        links = Links(await response.text())
    directives = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert directives.pop("default-src") == "'none'"
    assert directives["script-src"] == directives["connect-src"] == "'self'"
    assert not any("unsafe" in value or "http" in value for value in directives.values())
    assert links.inline == ""
    kinds = {}
    for link in links.found:
        if link == "data:,":
            continue
        # Relative, so that it holds below a prefix that an ingress may add.
        assert re.fullmatch(r"docs/[a-z-]+\.(js|css)", link)
        async with client.get(f"{PREFIX}/{link}") as asset:
            assert asset.status == 200
            kinds[link] = asset.content_type
            assert await asset.read()
    assert kinds == {
        "docs/swagger-ui.css": "text/css",
        "docs/swagger-ui-bundle.js": "text/javascript",
        "docs/start.js": "text/javascript",
    }


@pytest.mark.parametrize("asset", ["LICENSE", "..%2findex.html", "%2e%2e/__init__.py", "x"])
async def test_nothing_else_is_served(client: Client, asset: str) -> None:
    async with client.get(f"{PREFIX}/docs/{asset}") as response:
        assert response.status == 404


async def test_other_answers_keep_the_strictest_policy(client: Client) -> None:
    async with client.get(f"{PREFIX}/openapi.json") as response:
        assert "'self'" not in response.headers["Content-Security-Policy"]


def test_the_page_of_errors_is_current() -> None:
    assert (ROOT / "docs/errors.md").read_text() == as_markdown(), (
        "run: python -m app errors > docs/errors.md"
    )
    printed = CliRunner().invoke(main, ["errors"])
    assert printed.stdout == as_markdown()
