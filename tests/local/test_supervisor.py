"""What `up` starts, by the settings that it is given."""

import pytest

from app.configuration.section import SettingsError
from app.local.supervisor import Config


def test_without_an_address_a_coordinator_is_started() -> None:
    assert Config.from_env({}).own_coordinator


@pytest.mark.parametrize("program", ["UPSTREAM", "COORDINATOR"])
def test_an_address_of_a_coordinator_is_used_also_by_its_former_name(program: str) -> None:
    config = Config.from_env(
        {
            f"SCAIMIND_{program}_ADDRESS": "coordinator:50051",
            f"SCAIMIND_{program}_API_SECRET": "the-api-secret",
        }
    )
    assert not config.own_coordinator


def test_another_coordinator_needs_its_secret() -> None:
    with pytest.raises(SettingsError, match="SCAIMIND_UPSTREAM_API_SECRET: not set"):
        Config.from_env({"SCAIMIND_UPSTREAM_ADDRESS": "coordinator:50051"})


def test_settings_of_the_coordinator_alone_start_one() -> None:
    assert Config.from_env({"SCAIMIND_COORDINATOR_STOP_GRACE": "3"}).own_coordinator
