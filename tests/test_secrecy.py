"""A run of pytest that writes a secret fails, and says where; one that does not passes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

MAKES = """
import structlog, sys
from datetime import UTC, datetime
from joserfc import jwt
from joserfc.jwk import OctKey
from app.scaikey.api_keys import ApiKey, NewKey
from app.auth.tickets import NewTicket
from tests.secrecy import secret, written

NOW = datetime.now(UTC)
LITERAL = secret("the word between us two")

def key(): return NewKey(ApiKey("key_0", "t", "u", frozenset(), frozenset(), "", NOW, None, None),
                         "sgk_" + "0123456789abcdefghij" * 2).secret
def ticket(): return NewTicket("sgt_" + "zyxwvutsrqponmlkjihg" * 2, NOW).secret
def token(): return jwt.encode({"alg": "HS256"}, {"sub": "ann"}, OctKey.generate_key(256))
"""
LEAKS = """
def test_printed(): print("the key is", key())
def test_in_stderr(): print(ticket(), file=sys.stderr)
def test_logged(): structlog.get_logger().info("made", token=token())
def test_captured_log():
    with structlog.testing.capture_logs():
        structlog.get_logger().info("made", deep=[{"secret": key()}])
def test_truncated(): print("it begins with", key()[4:24])
def test_without_its_head(): print(token().rpartition(".")[2])
def test_in_a_file(tmp_path): (tmp_path / "gateway.log").write_text(key())
def test_by_a_process(): written("process", "and " + LITERAL)
def test_of_another_process(): written("other", "sgk_" + "never-seen-here" * 3)
"""
CLEAN = """
def test_made_and_kept(tmp_path):
    print("made", key()[:8], ticket()[:6], token()[:6])
    (tmp_path / "kept").write_text(key())
    structlog.get_logger().info("made", request_id="req_0123456789ab", words="x" * 100)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below pytest's own folder, whose log files the run that this is searches."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def run(folder: Path, tests: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_it.py").write_text(MAKES + tests)
    return subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "tests.secrecy",
                "-p",
                "no:cacheprovider",
            ),
            *("-c", "/dev/null", "--rootdir", str(folder), "--basetemp", str(folder / "tmp")),
            str(folder / "test_it.py"),
        ],
        cwd=PROJECT,
        # Loading all plugins that are installed takes longer than the run.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_leak_is_found_and_not_repeated(folder: Path) -> None:
    done = run(folder, LEAKS)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    report = done.stdout.partition("secrets were written")[2]
    for where, what in (
        ("test_printed, Captured stdout", "an API key"),
        ("test_in_stderr, Captured stderr", "a stream ticket"),
        ("test_logged, Captured stdout", "a JWT"),
        ("a captured log event", "an API key"),
        ("test_truncated, Captured stdout", "an API key"),
        ("test_without_its_head, Captured stdout", "a JWT"),
        ("gateway.log", "an API key"),
        ("process", "a literal"),
        ("other", "the form of a secret"),
    ):
        assert any(where in line and what in line for line in report.splitlines()), (where, report)
    for secret in ("0123456789abcdefghij", "zyxwvuts", "the word", "never-seen"):
        assert secret not in report


def test_a_run_that_keeps_its_secrets_passes(folder: Path) -> None:
    done = run(folder, CLEAN)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "secrets were written" not in done.stdout
