"""The coordinator's configuration."""

from pathlib import Path

import pytest

from app.coordinator import BadConfig, CoordinatorConfig
from app.coordinator.cluster import GpuSpec
from app.coordinator.config import parse_size, parse_virtual_nodes
from app.coordinator.server import Coordinator
from tests.coordinator.harness import config_for

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
