"""Which commit the running code is."""

import subprocess
from pathlib import Path

import pytest

from app.gateway.commit import running_commit
from tests.programs import program


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, str]:
    """A repository with one commit, and that commit."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        command = (program("git"), *identity, *arguments)
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    return tmp_path, git("rev-parse", "HEAD")


def test_a_checkout_tells_its_commit(checkout: tuple[Path, str]) -> None:
    root, commit = checkout
    assert running_commit("", root=root) == commit


def test_what_the_build_was_given_is_used_first(checkout: tuple[Path, str]) -> None:
    root, _ = checkout
    assert running_commit("0123abc", root=root) == "0123abc"


def test_a_folder_in_somebody_elses_checkout_has_no_commit(checkout: tuple[Path, str]) -> None:
    root, _ = checkout
    (root / "site-packages").mkdir()
    assert running_commit("", root=root / "site-packages") is None


def test_without_git_it_is_not_known(
    checkout: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = checkout
    monkeypatch.setenv("PATH", str(root))
    assert running_commit("", root=root) is None


@pytest.mark.parametrize("built", ["unknown", "v1; rm", "hunter2-the-secret"])
def test_what_is_no_commit_is_not_told(built: str, tmp_path: Path) -> None:
    assert running_commit(built, root=tmp_path) is None
