"""Settings: read once, checked, and silent about secrets."""

from dataclasses import fields
from pathlib import Path

import pytest

from app.bridge.settings import UpstreamSettings
from app.configuration.section import Section, SettingsError
from app.database.settings import DatabaseSettings
from app.gateway.settings import SECTIONS, Settings
from app.hub.settings import HubSettings

NEEDED = {
    "SCAIMIND_UPSTREAM_API_SECRET": "the-api-secret",
    "SCAIMIND_DATABASE_DSN": "postgresql://u:the-password@db/scaimind",
}


def test_what_is_needed_is_enough() -> None:
    settings = Settings.from_env(NEEDED)
    assert settings == Settings(
        upstream=UpstreamSettings(api_secret="the-api-secret"),
        database=DatabaseSettings(dsn="postgresql://u:the-password@db/scaimind"),
    )
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)


def test_a_variable_is_read_into_its_field_with_its_type() -> None:
    settings = Settings.from_env(
        {
            **NEEDED,
            "SCAIMIND_PORT": "9000",
            "SCAIMIND_HUB_FLUSH_MAX": "0.02",
            "SCAIMIND_LOG_LEVEL": "debug",
            "SCAIMIND_UPSTREAM_ADDRESS": "coordinator:50051",
        }
    )
    assert settings.server.port == 9000
    assert settings.hub.flush_max == 0.02
    assert settings.telemetry.log_level == "debug"
    assert settings.upstream.address == "coordinator:50051"


def test_the_process_environment_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCAIMIND_PORT", "1")
    assert Settings.from_env(NEEDED).server.port == 8080


def test_what_is_missing_is_named_and_explained() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == list(NEEDED)
    assert "libpq connection string" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SCAIMIND_PORT", "70000"),
        ("SCAIMIND_PORT", "-1"),
        ("SCAIMIND_PORT", "http"),
        ("SCAIMIND_HUB_LINGER", "soon"),
        ("SCAIMIND_HUB_LINGER", "nan"),
        ("SCAIMIND_HUB_FLUSH_SHARE", "0"),
        ("SCAIMIND_LOG_LEVEL", "loud"),
        ("SCAIMIND_HOST", ""),
        ("SCAIMIND_AUTH_KEY_TTL", "60"),
        ("SCAIMIND_AUTH_AUDIENCE", ""),
        ("SCAIMIND_AUTH_JWKS_URL", "keys.json"),
        ("SCAIMIND_AUTH_JWKS_URL", "ftp://scaikey/keys"),
        ("SCAIMIND_AUTH_JWKS_URL", "https://user:pass@scaikey/keys"),
        ("SCAIMIND_UPSTREAM_API_SECRET", " "),
    ],
)
def test_a_bad_value_gives_one_line_that_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**NEEDED, variable: value})
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"{variable}: ")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"SCAIMIND_PORT": "x", "SCAIMIND_HUB_LINGER": "y"})
    assert {problem.split(":")[0] for problem in caught.value.problems} == {
        "SCAIMIND_PORT",
        "SCAIMIND_HUB_LINGER",
        *NEEDED,
    }


@pytest.mark.parametrize(
    ("section", "low", "high"),
    [(section, *pair) for section in SECTIONS.values() for pair in section.ORDERED],
)
def test_bounds_in_the_wrong_order_are_refused(section: type[Section], low: str, high: str) -> None:
    bounds = {each.name: each.metadata for each in fields(section)}
    given = {
        **NEEDED,
        section.variable(low): str(bounds[low]["at_most"] or 10**9),
        section.variable(high): str(bounds[high]["at_least"]),
    }
    with pytest.raises(SettingsError, match=section.variable(low)) as caught:
        section.from_env(given)
    assert section.variable(high) in str(caught.value)


EXCHANGE = {
    "SCAIMIND_AUTH_TOKEN_URL": "https://scaikey/token",
    "SCAIMIND_AUTH_CLIENT_ID": "gateway",
    "SCAIMIND_AUTH_CLIENT_SECRET": "the-client-secret",
}
JWTS = {
    "SCAIMIND_AUTH_ISSUER": "https://scaikey",
    "SCAIMIND_AUTH_JWKS_URL": "http://127.0.0.1:8081/jwks.json",
}


@pytest.mark.parametrize("group", [EXCHANGE, JWTS])
def test_what_belongs_together_is_set_together(group: dict[str, str]) -> None:
    Settings.from_env({**NEEDED, **group})
    Settings.from_env({**NEEDED, **dict.fromkeys(group, "")})
    for left_out in group:
        rest = {name: value for name, value in group.items() if name != left_out}
        with pytest.raises(SettingsError) as caught:
            Settings.from_env({**NEEDED, **rest})
        assert caught.value.problems == (f"{left_out}: required together with {', '.join(rest)}.",)
        assert "the-client-secret" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    settings = Settings.from_env({**NEEDED, **EXCHANGE})
    assert "the-client-secret" not in repr(settings)
    assert "the-api-secret" not in repr(settings)
    assert "the-password" not in repr(settings)
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**NEEDED, "SCAIMIND_PORT": "x"})
    assert "the-password" not in str(caught.value)


def test_a_secret_can_be_read_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    read = UpstreamSettings.from_env({"SCAIMIND_UPSTREAM_API_SECRET_FILE": str(secret)})
    assert read.api_secret == "from-a-file"


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_secret_file_that_is_of_no_use_is_named(tmp_path: Path, content: bytes | None) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings.from_env({"SCAIMIND_DATABASE_DSN_FILE": str(secret)})
    [line] = caught.value.problems
    assert line.startswith("SCAIMIND_DATABASE_DSN_FILE: ")


@pytest.mark.parametrize("section", SECTIONS.values())
def test_every_setting_says_what_it_is(section: type[Section]) -> None:
    for each in fields(section):
        assert each.metadata["text"].endswith("."), each.name


def test_the_defaults_are_within_their_own_bounds() -> None:
    for section in SECTIONS.values():
        given = {
            section.variable(each.name): str(each.default)
            for each in fields(section)
            if "secret" not in each.metadata and each.default not in ((), None)
        }
        section.from_env({**NEEDED, **given})
    assert HubSettings().flush_min < HubSettings().flush_max


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("", ()),
        (" , ", ()),
        ("*", ("*",)),
        (
            "https://app.example.com, http://[::1]:3000,https://a-b.example:8443",
            ("https://app.example.com", "http://[::1]:3000", "https://a-b.example:8443"),
        ),
    ],
)
def test_origins_are_a_list(given: str, read: tuple[str, ...]) -> None:
    assert Settings.from_env({**NEEDED, "SCAIMIND_CORS_ORIGINS": given}).cors.origins == read


@pytest.mark.parametrize(
    "origin",
    ["app.example.com", "https://app.example.com/", "https://App.example", "null", "https://*.a.b"],
)
def test_what_is_no_origin_is_told(origin: str) -> None:
    with pytest.raises(SettingsError, match="SCAIMIND_CORS_ORIGINS") as caught:
        Settings.from_env({**NEEDED, "SCAIMIND_CORS_ORIGINS": f"https://good.example,{origin}"})
    (problem,) = caught.value.problems
    assert "entry 2 must be an origin as browsers send it: `https://`" in problem
    assert origin not in problem


FORMER = {"SCAIMIND_DATABASE_DSN": "postgresql://u:p@db/scaimind"}


def test_former_names_count_where_the_new_ones_are_not_set() -> None:
    settings = Settings.from_env(
        {
            **FORMER,
            "SCAIMIND_COORDINATOR_ADDRESS": "coordinator:50051",
            "SCAIMIND_COORDINATOR_API_SECRET": "the-api-secret",
            "SCAIMIND_COORDINATOR_UNARY_TIMEOUT": "7",
        }
    )
    upstream = settings.upstream
    assert (upstream.address, upstream.api_secret) == ("coordinator:50051", "the-api-secret")
    assert upstream.unary_timeout == 7
    assert {each.former: each.variable for each in settings.renamed} == {
        f"SCAIMIND_COORDINATOR_{name}": f"SCAIMIND_UPSTREAM_{name}"
        for name in ("ADDRESS", "API_SECRET", "UNARY_TIMEOUT")
    }


def test_a_former_secret_file_counts(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file")
    given = {"SCAIMIND_COORDINATOR_API_SECRET_FILE": str(secret)}
    assert UpstreamSettings.from_env(given).api_secret == "from-a-file"
    (renamed,) = UpstreamSettings.renamed(given)
    assert renamed.variable == "SCAIMIND_UPSTREAM_API_SECRET_FILE"


def test_a_former_name_that_says_something_else_stops_the_start() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(
            {
                **NEEDED,
                "SCAIMIND_UPSTREAM_UNARY_TIMEOUT": "5",
                "SCAIMIND_COORDINATOR_UNARY_TIMEOUT": "7",
            }
        )
    (line,) = caught.value.problems
    assert line.startswith("SCAIMIND_UPSTREAM_UNARY_TIMEOUT: ")
    assert "Remove SCAIMIND_COORDINATOR_UNARY_TIMEOUT." in line


def test_a_former_name_that_says_the_same_is_only_reported() -> None:
    both = {f"SCAIMIND_{each}_UNARY_TIMEOUT": "5" for each in ("UPSTREAM", "COORDINATOR")}
    settings = Settings.from_env({**NEEDED, **both})
    assert settings.upstream.unary_timeout == 5
    assert [each.former for each in settings.renamed] == ["SCAIMIND_COORDINATOR_UNARY_TIMEOUT"]


@pytest.mark.parametrize(
    ("name", "coordinators", "ours"),
    [
        ("ADDRESS", "0.0.0.0:50051", "coordinator:50051"),
        ("API_SECRET", "theirs", "ours"),
        ("MAX_MESSAGE_BYTES", "1048576", "2097152"),
    ],
)
def test_what_the_coordinator_keeps_is_its_own_where_ours_is_set(
    name: str, coordinators: str, ours: str
) -> None:
    settings = Settings.from_env(
        {**NEEDED, f"SCAIMIND_COORDINATOR_{name}": coordinators, f"SCAIMIND_UPSTREAM_{name}": ours}
    )
    assert str(getattr(settings.upstream, name.lower())) == ours
    assert settings.renamed == ()


def test_a_bad_value_of_a_former_name_names_that_one() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**NEEDED, "SCAIMIND_COORDINATOR_READ_ATTEMPTS": "many"})
    (line,) = caught.value.problems
    assert line.startswith("SCAIMIND_COORDINATOR_READ_ATTEMPTS: ")


def test_the_drive_is_in_a_folder_or_in_a_bucket() -> None:
    folder = {"SCAIMIND_DRIVE_DIR": "/srv/drive"}
    bucket = {
        "SCAIMIND_DRIVE_URL": "s3://scaimind/drive/",
        "SCAIMIND_DRIVE_ENDPOINT": "https://s3.example.com",
        "SCAIMIND_DRIVE_CREDENTIALS_FILE": "/etc/scaimind/drive-credentials",
    }
    assert Settings.from_env({**NEEDED, **bucket}).drive.url == "s3://scaimind/drive"
    assert [
        Settings.from_env({**NEEDED, **given}).drive.served for given in ({}, folder, bucket)
    ] == [False, True, True]
    for given, problem in (
        ({**folder, **bucket}, "SCAIMIND_DRIVE_URL: set it or SCAIMIND_DRIVE_DIR, and not both."),
        (
            {"SCAIMIND_DRIVE_ENDPOINT": "https://s3.example.com"},
            "SCAIMIND_DRIVE_ENDPOINT: requires SCAIMIND_DRIVE_URL.",
        ),
    ):
        with pytest.raises(SettingsError) as caught:
            Settings.from_env({**NEEDED, **given})
        assert caught.value.problems == (problem,)
