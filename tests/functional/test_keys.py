"""`keys` and `migrate` beside a stack that runs."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.functional.stack import PATIENCE, PROJECT, Stack, environ


def run(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-m", "app", *arguments),
        cwd=PROJECT,
        env=environ(stack.data_dir),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def audited(stderr: str) -> dict[str, Any]:
    """The one audit event among what a command said."""
    (line,) = (line for line in stderr.splitlines() if line.startswith("{"))
    event: dict[str, Any] = json.loads(line)
    assert event["event"] == "audit"
    return event


def status_of_jobs(stack: Stack, key: str) -> int:
    request = urllib.request.Request(
        f"{stack.url}/v1/modules/scaimind/jobs", headers={"Authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_key_is_made_listed_and_revoked(stack: Stack) -> None:
    made = run(
        stack,
        *("keys", "create", "--tenant", "local", "--user", "alice", "--role", "tenant_viewer"),
        *("--name", "hers"),
    )
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("sgk_")
    assert secret not in made.stderr
    event = audited(made.stderr)
    assert (event["action"], event["outcome"]) == ("key.create", "ok")
    assert (event["actor"], event["target_tenant_id"]) == ("operator", "local")
    assert (event["key_user_id"], event["roles"]) == ("alice", "tenant_viewer")
    assert event["user_id"]

    listed = run(stack, "keys", "list", "--tenant", "local").stdout
    header, *rows = (line.split("\t") for line in listed.splitlines())
    (row,) = (each for each in rows if "alice" in each)
    key = dict(zip(header, row, strict=True))
    assert key.pop("KEY").startswith("key_")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", key.pop("CREATED"))
    assert key == {
        "TENANT": "local",
        "USER": "alice",
        "STATE": "valid",
        "ROLES AND PERMISSIONS": "tenant_viewer",
        "EXPIRES": "never",
        "REVOKED": "-",
        "NAME": "hers",
    }
    assert secret not in listed

    revoked = run(stack, "keys", "revoke", row[0])
    assert revoked.returncode == 0, revoked.stderr
    assert audited(revoked.stderr)["action"] == "key.revoke"
    assert audited(revoked.stderr)["target_id"] == event["target_id"] == row[0]
    assert f"{row[0]}\tlocal\talice\trevoked" in run(stack, "keys", "list").stdout
    assert status_of_jobs(stack, secret) == 401
    assert status_of_jobs(stack, stack.key) == 200


def test_an_engineer_gets_permissions_one_by_one_and_an_expiry_is_listed(stack: Stack) -> None:
    made = run(
        stack,
        *("keys", "create", "--tenant", "local", "--user", "eve", "--preset", "engineer"),
        *("--permission", "scaimind:view", "--expires", "2099-12-31T10:00:00+0200"),
    )
    assert made.returncode == 0, made.stderr
    assert status_of_jobs(stack, made.stdout.strip()) == 200
    listed = run(stack, "keys", "list").stdout
    (row,) = (line.split("\t") for line in listed.splitlines() if "\teve\t" in line)
    assert row[4] == "scaimind:evaluate,scaimind:manage,scaimind:view"
    assert row[6] == "2099-12-31T08:00:00Z"


@pytest.mark.parametrize(
    ("arguments", "says", "outcome"),
    [
        (("revoke", "key_0"), "key_0", "UnknownKey"),
        (("create", "--tenant", "t", "--user", "u"), "--role", None),
        (("create", "--tenant", "t", "--user", "u", "--role", "emperor"), "emperor", "InvalidKey"),
        (
            ("create", "--tenant", "a b", "--user", "u", "--role", "tenant_user"),
            "a b",
            "InvalidKey",
        ),
    ],
)
def test_what_cannot_be_done(
    stack: Stack, arguments: tuple[str, ...], says: str, outcome: str | None
) -> None:
    done = run(stack, "keys", *arguments)
    assert done.returncode == 1
    *events, line = done.stderr.splitlines()
    assert says in line
    assert [json.loads(each)["outcome"] for each in events] == ([outcome] if outcome else [])


def test_the_first_key_is_in_the_audit_trail(stack: Stack) -> None:
    (line,) = (stack.data_dir / "logs" / "audit.log").read_text().splitlines()
    event = audited(line)
    assert (event["action"], event["roles"]) == ("key.create", "tenant_admin")
    assert stack.key not in line


def test_migrating_again_changes_nothing(stack: Stack) -> None:
    done = run(stack, "migrate")
    assert done.returncode == 0, done.stderr
    assert "already" in done.stdout
