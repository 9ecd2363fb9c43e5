"""One audit event: its form, its bounds, and that no secret is in it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from app.telemetry.audit import Action, Actor, Identity, Target, record
from app.telemetry.logs import logger_to

KEY = "sgk_" + "k" * 43
ANN = Identity(Actor.USER, "acme", "ann", "key_0123456789abcdef")


def written(**fields: Any) -> dict[str, Any]:
    out = io.BytesIO()
    record(Action.JOB_CANCEL, **{"by": ANN, "on": None, **fields}, log=logger_to(out))
    (line,) = out.getvalue().splitlines()
    event: dict[str, Any] = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    return event


def test_an_event_says_who_did_what_on_what_and_how_it_ended() -> None:
    assert written(on=Target("job", "job-1"), status=200) == {
        "event": "audit",
        "level": "info",
        "action": "job.cancel",
        "outcome": "ok",
        "actor": "user",
        "tenant_id": "acme",
        "user_id": "ann",
        "credential_id": "key_0123456789abcdef",
        "target_type": "job",
        "target_id": "job-1",
        "status": 200,
    }


def test_whose_the_target_is_is_said_where_it_may_be_anothers() -> None:
    assert written(on=Target("key", "key_1", "acme"))["target_tenant_id"] == "acme"


@pytest.mark.writes_secrets
def test_an_id_that_is_a_secret_is_masked() -> None:
    assert KEY not in json.dumps(written(on=Target("job", KEY), created_id=f"x-{KEY}"))


@pytest.mark.parametrize("length", [256, 257, 100_000])
def test_no_text_is_longer_than_its_bound(length: int) -> None:
    event = written(on=Target("job", "a" * length), by=Identity(Actor.USER, "t" * length))
    for text in (event["target_id"], event["tenant_id"]):
        assert len(text) == 256
        assert text.endswith("…") is (length > 256)


def test_published_actions_are_those_of_the_documentation() -> None:

    page = Path(__file__).parents[2].joinpath("docs/operations.md").read_text(encoding="utf-8")
    assert [each for each in Action if f"`{each}`" not in page] == []
