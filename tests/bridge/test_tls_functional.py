"""TLS to the coordinator, one-sided and mutual, against a real gRPC server."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import trustme

from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.settings import UpstreamSettings
from app.bridge.tls import channel_credentials
from app.caller import Caller
from app.configuration.section import SettingsError
from app.errors import COORDINATOR_UNAVAILABLE, ApiError
from tests.scripted_coordinator import ScriptedCoordinator

CALLER = Caller(tenant_id="acme", user_id="ann", request_id="req_1")


class Authority:
    """A certificate authority whose files are in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, name: str, *, clients: "Authority | None" = None) -> grpc.ServerCredentials:
        """Credentials of a server of this name that lets in whom `clients` vouches for."""
        cert = self._ca.issue_cert(name)
        chain = b"".join(pem.bytes() for pem in cert.cert_chain_pems)
        return grpc.ssl_server_credentials(
            [(cert.private_key_pem.bytes(), chain)],
            root_certificates=None if clients is None else Path(clients.file).read_bytes(),
            require_client_auth=clients is not None,
        )

    def client(self, name: str) -> tuple[str, str]:
        """The files of a client's certificate and key."""
        cert = self._ca.issue_cert(name)
        chain, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        chain.write_bytes(b"".join(pem.bytes() for pem in cert.cert_chain_pems))
        cert.private_key_pem.write_to_path(str(key))
        return str(chain), str(key)


@pytest.fixture
def authority(tmp_path: Path) -> Callable[[str], Authority]:
    return lambda name: Authority(tmp_path / name)


def settings(**tls: str) -> UpstreamSettings:
    return UpstreamSettings(
        api_secret="secret",
        unary_timeout=60,
        read_attempts=1,
        **{f"tls_{name}": value for name, value in tls.items()},  # type: ignore[arg-type]  # text all of them
    )


async def ask(server: grpc.ServerCredentials | None, given: UpstreamSettings) -> None:
    """Make a call; raises `ApiError` if there is no connection."""
    async with ScriptedCoordinator(credentials=server) as coordinator:
        given = replace(given, address=coordinator.address)
        async with open_channel(given, credentials=channel_credentials(given)) as channel:
            await CoordinatorClient(channel=channel, settings=given).get_job(CALLER, "job-1")
        assert len(coordinator.requests("GetJob")) == 1


async def refused(server: grpc.ServerCredentials | None, given: UpstreamSettings) -> None:
    with pytest.raises(ApiError) as caught:
        await ask(server, given)
    assert caught.value.kind is COORDINATOR_UNAVAILABLE


async def test_tls_by_an_authority_of_ones_own(authority: Callable[[str], Authority]) -> None:
    ours, others = authority("ours"), authority("others")
    await ask(ours.server("127.0.0.1"), settings(ca_file=ours.file))
    await refused(others.server("127.0.0.1"), settings(ca_file=ours.file))
    await refused(ours.server("127.0.0.1"), settings())
    await refused(None, settings(ca_file=ours.file))


async def test_the_name_in_the_certificate_counts(authority: Callable[[str], Authority]) -> None:
    ours = authority("ours")
    server = ours.server("mind.example")
    await refused(server, settings(ca_file=ours.file))
    await refused(server, settings(ca_file=ours.file, server_name="other.example"))
    await ask(server, settings(ca_file=ours.file, server_name="mind.example"))


async def test_both_show_a_certificate(authority: Callable[[str], Authority]) -> None:
    ours, others = authority("ours"), authority("others")
    server = ours.server("127.0.0.1", clients=ours)
    cert, key = ours.client("gateway")
    await ask(server, settings(ca_file=ours.file, cert_file=cert, key_file=key))
    await refused(server, settings(ca_file=ours.file))
    cert, key = others.client("stranger")
    await refused(server, settings(ca_file=ours.file, cert_file=cert, key_file=key))


def problems(**tls: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        channel_credentials(settings(**tls))
    return list(caught.value.problems)


def test_files_that_cannot_be_used_are_told(
    tmp_path: Path, authority: Callable[[str], Authority]
) -> None:
    ours = authority("ours")
    cert, key = ours.client("gateway")
    _, other_key = ours.client("other")
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    assert problems(ca_file=str(tmp_path / "none.pem")) == [
        "SCAIMIND_UPSTREAM_TLS_CA_FILE: the file cannot be read: No such file or directory."
    ]
    assert problems(ca_file=str(junk)) == [
        "SCAIMIND_UPSTREAM_TLS_CA_FILE: the file has no certificates (PEM)."
    ]
    both = "SCAIMIND_UPSTREAM_TLS_CERT_FILE, SCAIMIND_UPSTREAM_TLS_KEY_FILE: "
    assert problems(cert_file=cert, key_file=other_key) == [
        both + "the key does not match the certificate."
    ]
    assert problems(cert_file=str(junk), key_file=key) == [
        both + "not a certificate chain and its key (PEM, without a password)."
    ]
    assert len(problems(ca_file="/none", cert_file="/none", key_file="/none")) == 3


def test_several_addresses_need_the_name_of_the_certificate(
    authority: Callable[[str], Authority],
) -> None:
    """Of several, gRPC would look for all of them, as one name, in each certificate."""
    ours = authority("ours")
    several = replace(settings(ca_file=ours.file), address="10.0.0.1:1,10.0.0.2:1")
    with pytest.raises(SettingsError) as caught:
        channel_credentials(several)
    assert caught.value.problems == (
        "SCAIMIND_UPSTREAM_TLS_SERVER_NAME: required with several addresses.",
    )
    assert channel_credentials(replace(several, tls_server_name="mind.example")) is not None
    assert channel_credentials(replace(several, tls_ca_file="")) is None


def test_a_certificate_without_its_key_is_told() -> None:
    with pytest.raises(SettingsError, match=r"TLS_KEY_FILE: required together .*TLS_CERT_FILE"):
        UpstreamSettings.from_env(
            {
                "SCAIMIND_UPSTREAM_API_SECRET": "secret",
                "SCAIMIND_UPSTREAM_TLS_CERT_FILE": "cert.pem",
            }
        )


def test_without_any_of_the_settings_it_is_plain_text() -> None:
    assert channel_credentials(settings()) is None
