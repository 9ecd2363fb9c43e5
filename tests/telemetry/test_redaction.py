"""Nothing that looks like a secret leaves in a log line, and nothing else is touched."""

import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.credentials import is_value_of
from app.telemetry.redaction import MARK, MAX_TEXT, Redaction

APP = Path(__file__).parents[2] / "app"

KEY = "sgk_" + "Ab-_9" * 9
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlLW9mLWl0"
redact = Redaction()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {KEY}.", KEY),
        (f"'Authorization': 'Bearer {KEY}'", KEY),
        (f"token={JWT}", JWT),
        (JWT.rpartition(".")[0] + ".", JWT.rpartition(".")[0]),
        ("authorization: bearer abcdefgh12345", "abcdefgh12345"),
        ("Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA"),
        ("cannot open postgresql://ann:p4ss/w0rd@db/x", "p4ss/w0rd"),
        ("postgresql://:hunter22@/x", "hunter22"),
        ('postgresql://ann:quo"te\\d@db/x', 'quo"te'),
        ("host=db password=hunter22 user=ann", "hunter22"),
        ("host=db password='hunter 22' user=ann", "hunter 22"),
    ],
)
def test_what_looks_like_a_secret_is_blotted_out(text: str, secret: str) -> None:
    line = redact(orjson.dumps({"event": text, "nested": [{"deep": f"before {text} after"}]}))
    read = json.loads(line)
    assert secret not in line.decode()
    assert secret not in json.dumps(read)
    assert MARK in line


KNOWN = "plain words!"
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**53), 2**53),
    st.text("ab =:'", max_size=12),
    st.sampled_from(
        [KEY, JWT, KNOWN, f"token={JWT}", "GET", "/jobs/a", "req_0a1b2c3d4e5f", "x" * 300]
    ),
    st.lists(st.just(KEY), max_size=1),
)
NAMES = st.sampled_from(["event", "path", "password", "token", "request_id", KEY, KNOWN])


@given(events=st.lists(st.dictionaries(NAMES, VALUES), min_size=1, max_size=4))
def test_a_second_pass_is_needless_only_where_it_changes_nothing(
    events: list[dict[str, Any]],
) -> None:
    redaction = Redaction(known=(KNOWN,))
    for event in events:
        if redaction.is_needless(event):
            line = orjson.dumps(event)
            assert redaction(line) == line


def test_the_line_of_a_request_takes_no_second_pass() -> None:
    event = {
        "event": "request",
        "method": "GET",
        "route": "/v1/modules/scaimind/jobs/{job_id}",
        "path": "/v1/modules/scaimind/jobs/job-1",
        "status": 200,
        "code": None,
        "seconds": 0.002,
        "remote": "127.0.0.1",
        "request_id": "req_0123456789abcdef01234567",
        "trace_id": "0123456789abcdef0123456789abcdef",
        "timestamp": "2026-01-31T18:00:00.123456Z",
    }
    assert redact.is_needless(event)
    assert not redact.is_needless(event | {"path": f"/jobs/{KEY}"})
    assert not redact.is_needless(event | {"token": "hunter22"})


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "password",
        "api_secret",
        "x-api-secret",
        "token",
        "x-scaidrive-token",
        "DSN",
    ],
)
def test_what_is_called_a_secret_is_blotted_out(name: str) -> None:
    line = redact(orjson.dumps({"event": "e", "headers": {name: 'any"thing \\ at all'}, "z": 1}))
    assert json.loads(line) == {"event": "e", "headers": {name: MARK.decode()}, "z": 1}


def test_known_secrets_are_blotted_out_whatever_they_look_like() -> None:
    known = Redaction(known=("plain words!", "plain words! and more", "short"))
    assert known(b'{"event":"e","x":{"plain words!":1}}') == b'{"event":"e","x":{"***":1}}'
    assert known(b'{"event":"plain words! and more, plain words!, short"}') == (
        b'{"event":"***, ***, short"}'
    )


@pytest.mark.parametrize(
    "text",
    [
        "the bearer of news",
        "password is not valid",
        "http://127.0.0.1:8080/v1/modules/scaimind/jobs",
        "next_page_token",
        "scaidrive://acme/train.jsonl and mail to ann@acme",
        "job sgk_1 has 3 tokens: 5",
        "eyJust.a.word",
    ],
)
def test_what_does_not_stays(text: str) -> None:
    line = orjson.dumps({"event": text, "tokens": 5, "status": "ok", "credential_id": "sgk_1"})
    assert redact(line) == line


def test_a_text_that_is_too_long_ends_in_a_mark() -> None:
    line = redact(orjson.dumps({"event": "e", "x": "x" * 100_000, "y": ["y" * MAX_TEXT]}))
    assert json.loads(line) == {
        "event": "e",
        "x": "x" * (MAX_TEXT - 1) + "…",
        "y": ["y" * MAX_TEXT],
    }


def test_no_event_that_is_logged_is_called_a_credential() -> None:
    """A field of a log event that has a credential's name is masked: choose another name."""
    call = re.compile(r"\blog\.[a-z]+\((?:[^()]|\([^()]*\))*\)")
    named = {
        name
        for path in APP.rglob("*.py")
        for found in call.findall(path.read_text(encoding="utf-8"))
        for name in re.findall(r"\b(\w+)=", found)
    }
    assert "credential_id" in named
    assert {name for name in named if is_value_of(name, "x" * 20)} == set()


@given(st.text(), st.text())
def test_a_line_stays_one_json_object(one: str, other: str) -> None:
    event = {"event": f"password={one} {KEY}", "x": {"token": other, "y": f"a://{one}:{other}@"}}
    line = redact(json.dumps(event).encode())
    assert json.loads(line).keys() == event.keys()
    assert b"\n" not in line
    assert KEY.encode() not in line
