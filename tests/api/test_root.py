"""`/` and `/version`."""

import pytest

from app import __version__
from tests.api.conftest import API_SECRET, Gateway


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_bare_address_leads_to_the_console(gateway: Gateway, method: str) -> None:
    answer = await gateway.ask(method, "/", key="", allow_redirects=False)
    assert answer.status == 302
    assert answer.headers["Location"] == "/console"
    page = await gateway.ask("GET", "/", key="")
    assert page.status == 200
    assert b"<html" in page.body


async def test_the_version_is_told_to_anyone_and_tells_no_secret(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", "/version", key="")
    assert answer.status == 200
    assert answer.json == {
        "data": {
            "name": "scaimind-gateway",
            "version": __version__,
            "commit": None,
            "contract": "mindcoordinator.v1",
        }
    }
    assert API_SECRET.encode() not in answer.body
