"""Identity end to end: keys become tokens, tokens open the API and go on to the coordinator."""

import base64
import json
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.functional.stack import PATIENCE, PROJECT, Stack, environ, events


def run(data_dir: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-m", "app", *arguments),
        cwd=PROJECT,
        env=environ(data_dir, **settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def token(stack: Stack, *arguments: str, **settings: str) -> str:
    done = run(stack.data_dir, "token", *arguments, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def claims(jwt: str) -> dict[str, Any]:
    payload = jwt.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return read


def ask(stack: Stack, path: str, key: str, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{stack.url}/v1/modules/scaimind{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def log_of(stack: Stack, name: str) -> list[dict[str, Any]]:
    text = (stack.data_dir / "logs" / f"{name}.log").read_text()
    # What is behind the last end of a line is being written.
    lines = text.rpartition("\n")[0].split("\n")
    return [json.loads(line) for line in lines if line.startswith("{")]


def exchanges(stack: Stack) -> dict[str, float]:
    with urllib.request.urlopen(f"{stack.url}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    found = (line.rsplit(" ", 1) for line in lines if line.startswith("scaimind_token_exchanges_t"))
    return {name.split('"')[1]: float(value) for name, value in found}


@pytest.fixture(scope="module")
def session(stack: Stack) -> str:
    """A JWT of the first key's owner."""
    return token(stack)


def test_a_key_becomes_a_token_that_opens_the_api(stack: Stack, session: str) -> None:
    said = claims(session)
    assert (said["aud"], said["tenant_id"], said["sub"]) == ("scaimind", "local", "admin")
    assert said["exp"] - said["iat"] == 3600
    status, answer = ask(stack, "/jobs", session)
    assert (status, answer.keys()) == (200, {"data"})


def test_a_token_for_somebody_else_does_not(stack: Stack) -> None:
    status, answer = ask(stack, "/jobs", token(stack, "--audience", "scaidrive"))
    assert (status, answer["error"]["code"]) == (401, "AUTH_TOKEN_INVALID")
    refused = [line for line in log_of(stack, "gateway") if line["event"] == "token_refused"]
    assert "aud" in refused[-1]["reason"]


SUBMISSION = {
    "name": "with tokens",
    "training_config": {
        "training_type": "CONTINUED_PRETRAIN",
        "base_model": {"model_id": "none"},
        "framework": {"type": "CUSTOM", "custom_script_path": "scaidrive://local/train.py"},
        "hyperparameters": {"steps": "20"},
    },
    "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
    "resource_config": {},
}


@pytest.mark.parametrize("kind", ["api key", "jwt"])
def test_a_job_is_submitted_with_tokens_for_the_drive(
    stack: Stack, session: str, kind: str
) -> None:
    key = session if kind == "jwt" else stack.key
    before = exchanges(stack)
    issued_before = len([line for line in log_of(stack, "issuer") if line["event"] == "issued"])

    status, answer = ask(stack, "/jobs", key, SUBMISSION)
    assert status == 201, answer
    checked, _ = ask(
        stack, "/data/validate", key, {"data_sources": [{"path": "scaidrive://local/corpus.jsonl"}]}
    )
    assert checked == 200

    issued = [line for line in log_of(stack, "issuer") if line["event"] == "issued"][issued_before:]
    after = exchanges(stack)
    # Each is got once at most: an earlier test may have had the first.
    assert {line["audience"] for line in issued} <= {"scaidrive", "scaiatlas"}
    used = after.get("minted", 0) + after.get("remembered", 0)
    assert used == before.get("minted", 0) + before.get("remembered", 0) + 4
    assert len(issued) == after.get("minted", 0) - before.get("minted", 0) <= 2
    job = stack.await_status(answer["data"]["job_id"], "COMPLETED", "FAILED")
    assert job["status"] == "COMPLETED", stack.log(job["job_id"])


def test_no_secret_of_it_all_is_in_a_log(stack: Stack, session: str) -> None:
    client_secret = (stack.data_dir / "issuer-client-secret").read_text().strip()
    private = json.loads((stack.data_dir / "issuer" / "keys.json").read_text())["current"]["d"]
    for log in (stack.data_dir / "logs").iterdir():
        text = log.read_text()
        for each in (client_secret, private, session, session.split(".")[2], stack.key):
            assert each not in text, log
    assert not any(client_secret in line for line in stack.lines)


def test_what_the_issuer_keeps_is_for_its_owner_alone(stack: Stack) -> None:
    for name in ("issuer-client-secret", "issuer/keys.json"):
        assert stat.S_IMODE((stack.data_dir / name).stat().st_mode) == 0o600


def test_a_revoked_key_gets_no_token(stack: Stack) -> None:
    made = run(
        stack.data_dir,
        *(
            "keys",
            "create",
            "--tenant",
            "local",
            "--user",
            "mallory",
            "--role",
            "tenant_viewer",
        ),
    )
    key = made.stdout.strip()
    assert claims(token(stack, SCAIMIND_API_KEY=key))["sub"] == "mallory"
    listed = run(stack.data_dir, "keys", "list").stdout.splitlines()
    (key_id,) = (line.split("\t")[0] for line in listed if "\tmallory\t" in line)
    assert run(stack.data_dir, "keys", "revoke", key_id).returncode == 0
    refused = run(stack.data_dir, "token", SCAIMIND_API_KEY=key)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "revoked" in line
    assert key not in line


@pytest.mark.slow
def test_short_lives_and_a_new_key_at_the_next_start(tmp_path: Path) -> None:
    data_dir = tmp_path / "var"
    with Stack(data_dir, SCAIMIND_ISSUER_SESSION_LIFETIME="3600") as first:
        long_lived = token(first)
        assert ask(first, "/jobs", long_lived)[0] == 200
    rotated = run(data_dir, "issuer", "--rotate")
    assert rotated.returncode == 0, rotated.stderr
    with Stack(data_dir, SCAIMIND_ISSUER_SESSION_LIFETIME="6") as second:
        # What the key before has signed counts until it ends.
        assert ask(second, "/jobs", long_lived)[0] == 200
        short_lived = token(second)
        assert claims(short_lived)["exp"] - claims(short_lived)["iat"] == 6
        assert _header(short_lived)["kid"] != _header(long_lived)["kid"]
        assert _header(short_lived)["kid"] in rotated.stdout

        # A stream ends with the token that opened it, though its job goes on.
        job_id = second.submit(steps="100000")
        request = urllib.request.Request(
            f"{second.url}/v1/modules/scaimind/jobs/{job_id}/logs",
            headers={"Authorization": f"Bearer {token(second)}"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            last = events(answer.read().decode())[-1]
        assert (last.name, last.data["code"]) == ("error", "AUTH_EXPIRED")
        assert second.get(f"/jobs/{job_id}")["status"] not in ("COMPLETED", "FAILED")


def _header(jwt: str) -> dict[str, Any]:
    part = jwt.split(".")[0]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return read


def test_an_issuer_that_crashes_is_started_again(tmp_path: Path) -> None:
    with Stack(tmp_path / "var") as stack:
        session = token(stack)
        stack.child("app", "issuer").kill()
        # Its keys are known to nobody yet: the first JWT waits for it to be back.
        said = stack.await_line("The issuer exited")
        assert "by SIGKILL; restarting" in said
        status, _ = ask(stack, "/jobs", stack.key)
        assert status == 200, "API keys need no issuer"
        await_answer(stack, session, 200)


def await_answer(stack: Stack, key: str, wanted: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (status := ask(stack, "/jobs", key)[0]) != wanted:
        assert status == 503
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_with_an_identity_provider_no_issuer_is_started(tmp_path: Path) -> None:
    given = {
        "SCAIMIND_AUTH_ISSUER": "https://scaikey.test",
        "SCAIMIND_AUTH_JWKS_URL": "http://127.0.0.1:1/jwks.json",
    }
    with Stack(tmp_path / "var", **given) as stack:
        assert not (stack.data_dir / "issuer-url").exists()
        assert not any("issuer" in line for line in stack.lines)
        assert ask(stack, "/jobs", stack.key)[0] == 200
        status, answer = ask(stack, "/jobs", stack.key, SUBMISSION)
        assert status == 201, answer


def test_a_bad_setting_of_the_issuer(tmp_path: Path) -> None:
    done = run(tmp_path / "var", "up", SCAIMIND_ISSUER_TOKEN_LIFETIME="long")
    assert done.returncode == 1
    assert "SCAIMIND_ISSUER_TOKEN_LIFETIME" in done.stderr
    assert not (tmp_path / "var").exists()


def test_no_issuer_to_ask(tmp_path: Path) -> None:
    done = run(tmp_path / "var", "token")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "Has 'up' been started" in line
