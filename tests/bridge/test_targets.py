"""Which coordinator gets the calls, of one or of several."""

import pytest

from app.bridge.channel import service_config, target_of
from app.bridge.settings import UpstreamSettings
from app.configuration.section import SettingsError


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("coordinator:50051", "coordinator:50051"),
        ("dns:///coordinators:50051", "dns:///coordinators:50051"),
        ("10.0.0.1:1, 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
    ],
)
def test_several_addresses_are_one_target(address: str, target: str) -> None:
    assert target_of(address) == target


@pytest.mark.parametrize("attempts", [1, 4])
@pytest.mark.parametrize("address", ["a:1", "10.0.0.1:1,10.0.0.2:2", "dns:///name:1"])
def test_of_several_coordinators_the_one_that_serves_is_called(address: str, attempts: int) -> None:
    settings = UpstreamSettings(address=address, api_secret="s", read_attempts=attempts)
    config = service_config(settings)
    assert ("methodConfig" in config) == (attempts > 1)
    if address == "a:1":
        assert "loadBalancingConfig" not in config
    else:
        assert config["healthCheckConfig"] == {"serviceName": ""}
        assert config["loadBalancingConfig"] == [{"round_robin": {}}]


@pytest.mark.parametrize(
    "address",
    [
        # As of a StatefulSet: gRPC takes several addresses, and several names by DNS alone.
        "coordinator-0:50051,coordinator-1:50051",
        "10.0.0.1:1,[::1]:1",
        "[::1]:1,10.0.0.1:1",
        "10.0.0.1:1,10.0.0.2",
        "10.0.0.1:1,",
        "dns:///a:1,b:1",
    ],
)
def test_what_grpc_cannot_call_is_refused_at_the_start(address: str) -> None:
    environ = {"SCAIMIND_UPSTREAM_ADDRESS": address, "SCAIMIND_UPSTREAM_API_SECRET": "secret"}
    with pytest.raises(SettingsError, match=r"^SCAIMIND_UPSTREAM_ADDRESS: .*dns:///") as caught:
        UpstreamSettings.from_env(environ)
    assert address not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["coordinator:1", "unix:/run/c.sock", "10.0.0.1:1, 10.0.0.2:2", "[::1]:1,[::2]:2"],
)
def test_what_grpc_can_call_is_taken(address: str) -> None:
    environ = {"SCAIMIND_UPSTREAM_ADDRESS": address, "SCAIMIND_UPSTREAM_API_SECRET": "secret"}
    assert UpstreamSettings.from_env(environ).address == address
