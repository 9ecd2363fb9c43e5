"""The issuer's settings: documented, checked, and silent about the secret."""

from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli.services import issuer
from app.configuration.section import SettingsError
from app.issuer.settings import IssuerSettings, KeySettings


def test_the_help_names_every_setting() -> None:
    shown = CliRunner().invoke(issuer, ["--help"]).output
    for each in fields(IssuerSettings):
        variable = IssuerSettings.variable(each.name)
        (line,) = (line for line in shown.splitlines() if variable in line.split())
        if each.name not in ("client_secret", "key_max_age"):
            assert str(each.default) in line
    assert str(KeySettings().key_max_age) in shown


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("the-client-secret\n")
    settings = IssuerSettings.from_env({"SCAIMIND_ISSUER_CLIENT_SECRET_FILE": str(file)})
    assert settings.client_secret == "the-client-secret"
    assert "the-client-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("TOKEN_LIFETIME", "0"), ("SESSION_LIFETIME", "for ever"), ("PORT", "-1"), ("NAME", " ")],
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    variable = f"SCAIMIND_ISSUER_{name}"
    with pytest.raises(SettingsError, match=variable):
        IssuerSettings.from_env({"SCAIMIND_ISSUER_CLIENT_SECRET": "s", variable: value})


def test_the_longest_life_is_that_of_any_token() -> None:
    assert KeySettings(token_lifetime=60, session_lifetime=7200).longest_lifetime == 7200
    assert KeySettings(token_lifetime=3600, session_lifetime=60).longest_lifetime == 3600


def test_a_new_key_needs_no_other_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCAIMIND_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("SCAIMIND_ISSUER_DATA_DIR", raising=False)
    done = CliRunner().invoke(issuer, ["--rotate"])
    assert done.exit_code == 0
    assert "The next start will sign with the new key" in done.output
    assert (tmp_path / "issuer" / "keys.json").exists()
