"""The profile that a stack on this machine writes for the command `scaimind`."""

import tomllib
from pathlib import Path

import pytest

from app.local.data_dir import DataDir, write_secret
from app.local.profile import write_profile


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/scaimind/config.toml"


def data_dir(root: Path, key: str = "sgk_1") -> DataDir:
    made = DataDir(root)
    made.prepare()
    write_secret(made.api_key, key)
    return made


def write(where: DataDir, url: str = "http://127.0.0.1:1", **environ: str) -> list[str]:
    told: list[str] = []
    write_profile(url, where, environ, told.append)
    return told


def test_the_first_start_writes_it_for_its_owner_alone(tmp_path: Path, config: Path) -> None:
    (line,) = write(data_dir(tmp_path / "var"))
    assert str(config) in line
    assert "sgk_1" not in line
    assert config.stat().st_mode & 0o777 == 0o600
    assert config.parent.stat().st_mode & 0o777 == 0o700
    assert tomllib.loads(config.read_text()) == {
        "default": "local",
        "profiles": {
            "local": {
                "url": "http://127.0.0.1:1",
                "api_key": "sgk_1",
                "data_dir": str(tmp_path / "var"),
            }
        },
    }


def test_a_later_start_brings_it_up_to_date_and_leaves_the_rest(
    tmp_path: Path, config: Path
) -> None:
    config.parent.mkdir(parents=True)
    config.write_text('# mine\ndefault = "work"\n\n[profiles.work]\nurl = "https://w"  # theirs\n')
    config.chmod(0o644)
    where = data_dir(tmp_path / "var")
    write(where)
    write_secret(where.api_key, "sgk_2")
    write(where, "http://127.0.0.1:2")
    text = config.read_text()
    assert "# mine" in text
    assert "# theirs" in text
    assert config.stat().st_mode & 0o777 == 0o600
    found = tomllib.loads(text)
    assert found["default"] == "work"
    assert found["profiles"]["work"] == {"url": "https://w"}
    assert found["profiles"]["local"]["url"] == "http://127.0.0.1:2"
    assert found["profiles"]["local"]["api_key"] == "sgk_2"


@pytest.mark.parametrize("owner", ["", 'data_dir = "/elsewhere"\n'])
def test_a_profile_of_somebody_else_stays(tmp_path: Path, config: Path, owner: str) -> None:
    config.parent.mkdir(parents=True)
    theirs = f'[profiles.local]\nurl = "https://theirs"\n{owner}'
    config.write_text(theirs)
    (line,) = write(data_dir(tmp_path / "var"))
    assert "left as it is" in line
    assert config.read_text() == theirs


@pytest.mark.parametrize("text", ["[profiles", "profiles = 3\n", "profiles.local = 3\n"])
def test_a_file_that_is_wrong_is_told_and_left(tmp_path: Path, config: Path, text: str) -> None:
    config.parent.mkdir(parents=True)
    config.write_text(text)
    (line,) = write(data_dir(tmp_path / "var"))
    assert str(config) in line
    assert config.read_text() == text


def test_it_is_written_where_a_link_leads(tmp_path: Path, config: Path) -> None:
    config.parent.mkdir(parents=True)
    (tmp_path / "dotfiles.toml").touch()
    config.symlink_to(tmp_path / "dotfiles.toml")
    write(data_dir(tmp_path / "var"))
    assert config.is_symlink()
    assert "sgk_1" in (tmp_path / "dotfiles.toml").read_text()


def test_who_does_not_want_it_has_none(tmp_path: Path, config: Path) -> None:
    assert write(data_dir(tmp_path / "var"), SCAIMIND_NO_PROFILE="1") == []
    assert not config.exists()


def test_no_home_is_no_reason_not_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    (line,) = write(data_dir(tmp_path / "var"))
    assert "cannot be used" in line
