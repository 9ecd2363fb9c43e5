"""What a test says that lacks a program."""

from pathlib import Path

import pytest

from tests.programs import program


def test_a_program_is_found_by_any_of_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program("one-that-is-not-there", "other") == str(other)


def test_the_skip_names_the_program_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(pytest.skip.Exception, match=r"promtool is not installed: .* prometheus"):
        program("promtool")
