"""The coordinator's configuration."""

import fcntl
import os
import re
import threading
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from app.configuration.values import parse_size
from app.coordinator import BadConfig, CoordinatorConfig
from app.coordinator.cluster.node_specs import GpuSpec
from app.coordinator.server import Coordinator
from app.coordinator.settings import reference as config_text
from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from tests.coordinator.harness import config_for, running

SECRET = {"SCAIMIND_COORDINATOR_API_SECRET": "hush"}
GIB = 1024**3


def test_defaults_and_settings() -> None:
    config = CoordinatorConfig.from_env(SECRET)
    assert config.address == "127.0.0.1:50051"
    assert config.drive_root == config.data_dir / "drive"
    assert "hush" not in repr(config)
    config = CoordinatorConfig.from_env(
        {
            **SECRET,
            "SCAIMIND_COORDINATOR_DATA_DIR": "/a",
            "SCAIMIND_COORDINATOR_DRIVE_DIR": "/b",
            "SCAIMIND_COORDINATOR_STOP_GRACE": "2.5",
            "SCAIMIND_COORDINATOR_MAX_MESSAGE_BYTES": "8MiB",
        }
    )
    assert (config.data_dir, config.drive_root) == (Path("/a"), Path("/b"))
    assert (config.stop_grace, config.max_message_bytes) == (2.5, 8 * 1024**2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ADDRESS", "nowhere"),
        ("ADDRESS", "127.0.0.1:70000"),
        ("STOP_GRACE", "soon"),
        ("STOP_GRACE", "nan"),
        ("MAX_MESSAGE_BYTES", "0"),
        ("MAX_MESSAGE_BYTES", "7MiB"),
        ("CPUS", "-1"),
        ("NODE_ID", "a b"),
        ("VIRTUAL_NODES", "a100"),
        ("VIRTUAL_NODES", "a:0xA100"),
        ("VIRTUAL_NODES", "a:1xA100,a:1xA100"),
        ("VIRTUAL_NODES", "a:1xA100:cpus"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(BadConfig, match=f"^SCAIMIND_COORDINATOR_{name}: "):
        CoordinatorConfig.from_env({**SECRET, f"SCAIMIND_COORDINATOR_{name}": value})


def test_a_secret_is_needed() -> None:
    with pytest.raises(BadConfig, match="API_SECRET"):
        CoordinatorConfig.from_env({})


def test_virtual_nodes() -> None:
    first, second = parse_virtual_nodes("a:8xA100-80GB, b:2xL4:cpus=6:memory=10GiB:zone=z")
    assert first.gpus == (GpuSpec("A100-80GB", 80 * GIB),) * 8
    assert (first.cpus, first.memory, first.virtual) == (64, 512 * GIB, True)
    assert second.gpus == (GpuSpec("L4", 0),) * 2
    assert (second.cpus, second.memory, dict(second.labels)) == (6, 10 * GIB, {"zone": "z"})


def test_sizes() -> None:
    assert [parse_size(text) for text in ("5", "1K", "2MiB", "3GB")] == [
        5,
        1024,
        2 * 1024**2,
        3 * GIB,
    ]


async def test_one_data_directory_has_one_coordinator(tmp_path: Path) -> None:
    async with Coordinator(config_for(tmp_path)) as first:
        with pytest.raises(BadConfig, match="another coordinator"):
            async with Coordinator(config_for(tmp_path)):
                pass
        taken = config_for(tmp_path / "other", address=f"127.0.0.1:{first.port}")
        with pytest.raises(BadConfig, match="in use"):
            async with Coordinator(taken):
                pass


async def test_a_start_waits_for_what_a_killed_coordinator_was_starting(tmp_path: Path) -> None:
    # Such a program has the lock for as long as it is a copy of the coordinator.
    held = os.open(tmp_path / "owner.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    let_go = threading.Timer(0.2, os.close, (held,))
    let_go.start()
    try:
        async with running(tmp_path):
            assert not let_go.is_alive()
    finally:
        let_go.join()


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "coordinator.toml"
    path.write_text(text)
    return path


def test_a_file_and_the_environment_that_wins(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    file = toml(
        tmp_path,
        f"""
        data_dir = "/a"
        api_secret_file = "{tmp_path / "secret"}"
        stop_grace = 2.5
        cpus = 3
        cache_bytes = "1GiB"
        allowed_paths = ["/srv/a", "/srv/b"]
        virtual_nodes = ["a:1xL4", "b:2xL4:zone=z"]
        """,
    )
    config = CoordinatorConfig.from_env({"SCAIMIND_COORDINATOR_CPUS": "4"}, file=file)
    assert (config.data_dir, config.api_secret) == (Path("/a"), "from a file")
    assert (config.stop_grace, config.cpus, config.cache_bytes) == (2.5, 4, GIB)
    assert config.allowed_paths == (Path("/srv/a"), Path("/srv/b"))
    assert [node.node_id for node in config.virtual_nodes] == ["a", "b"]
    named = CoordinatorConfig.from_env({"SCAIMIND_COORDINATOR_CONFIG": str(file)})
    assert named.cpus == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("adress = 1", "adress: there is no such setting. Did you mean address?"),
        ("cpus = 0", "cpus: '0' is not a count"),
        ("cpus = true", "cpus: must be a string or a number"),
        ("cpus = [1]", "cpus: must be a string or a number"),
        ("allowed_paths = [1]", "allowed_paths: must be a list of strings"),
        ('allowed_paths = ["data"]', "allowed_paths: 'data' is not an absolute path"),
        ('jwks_url = "ftp://a"', "jwks_url: 'ftp://a' is not an http"),
        (
            'jwks_url = "http://a/b"',
            "TOKEN_ISSUER: required together with ",
        ),
        (
            'listen_tls_key_file = "a"',
            "LISTEN_TLS_CERT_FILE: required together with ",
        ),
        (
            'listen_tls_client_ca_file = "a"',
            "listen_tls_client_ca_file: requires ",
        ),
        ("cpus = ", "not valid TOML"),
    ],
)
def test_a_bad_file_gets_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(BadConfig) as caught:
        CoordinatorConfig.from_env(SECRET, file=toml(tmp_path, text))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        CoordinatorConfig.from_env(
            {"SCAIMIND_COORDINATOR_CPUS": "none"}, file=toml(tmp_path, 'address = "nowhere"')
        )
    assert {problem.partition(": ")[0] for problem in caught.value.problems} == {
        f"{tmp_path}/coordinator.toml",
        "SCAIMIND_COORDINATOR_API_SECRET",
        "SCAIMIND_COORDINATOR_CPUS",
    }


def test_a_secret_s_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="api_secret_file: the file cannot be read"):
        CoordinatorConfig.from_env({}, file=toml(tmp_path, 'api_secret_file = "/missing"'))


def test_a_secret_of_the_environment_wins_over_the_file_s_however_each_is_set(
    tmp_path: Path,
) -> None:
    (tmp_path / "secret").write_text("from a file")
    by_file = {"SCAIMIND_COORDINATOR_API_SECRET_FILE": str(tmp_path / "secret")}
    file = toml(tmp_path, f'api_secret_file = "{tmp_path}/missing"')
    assert CoordinatorConfig.from_env(SECRET, file=file).api_secret == "hush"
    file = toml(tmp_path, 'api_secret = "other"')
    assert CoordinatorConfig.from_env(by_file, file=file).api_secret == "from a file"
    assert CoordinatorConfig.from_env({}, file=file).api_secret == "other"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    empty = {"SCAIMIND_COORDINATOR_CPUS": "", "SCAIMIND_COORDINATOR_STOP_GRACE": ""}
    config = CoordinatorConfig.from_env({**SECRET, **empty}, file=toml(tmp_path, "cpus = 3"))
    assert (config.cpus, config.stop_grace) == (3, 30.0)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"none\.toml: No such file"):
        CoordinatorConfig.from_env(SECRET, file=tmp_path / "none.toml")


@pytest.mark.parametrize(("content", "problem"), [("", "is empty"), ("a\nb", "printable")])
def test_a_secret_that_cannot_be_sent(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "secret").write_text(content)
    variables = {"SCAIMIND_COORDINATOR_API_SECRET_FILE": str(tmp_path / "secret")}
    with pytest.raises(BadConfig, match=problem) as caught:
        CoordinatorConfig.from_env(variables)
    assert "a\nb" not in str(caught.value)


def test_the_documented_file_has_every_setting_and_says_the_defaults(tmp_path: Path) -> None:
    text = config_text.as_toml()
    config = CoordinatorConfig.from_env(SECRET, file=toml(tmp_path, text))
    assert config == CoordinatorConfig.from_env(SECRET)
    # With every key uncommented it is still a file that can be read.
    every = re.sub(r"(?m)^# (?=[a-z_]+ = )", "", text)
    secrets = ("api_secret", "database_dsn")
    for name in secrets:
        every = every.replace(f'{name} = "..."\n', "")
        (tmp_path / name).write_text("hush")
    every = every.replace("/run/secrets/", f"{tmp_path}/")
    assert tomllib.loads(every).keys() == {
        f"{field.name}_file" if field.name in secrets else field.name
        for field in fields(CoordinatorConfig)
    }
    full = CoordinatorConfig.from_env({}, file=toml(tmp_path, every))
    assert full.token_issuer == "https://scaikey.example"


def test_the_page_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "coordinator.md"
    assert page.read_text() == config_text.as_markdown()
