"""The coordinator alone, with TLS and the shared secret, and the gateway's own client before it."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from app import errors
from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.settings import UpstreamSettings
from app.bridge.tls import channel_credentials
from app.caller import Caller
from app.coordinator import BadConfig
from app.coordinator.server import Coordinator
from app.errors import ApiError
from tests.coordinator.harness import SECRET, config_for

CALLER = Caller(
    tenant_id="local", user_id="u", permissions=frozenset(), request_id="req_1", credential_id="k"
)


class Certificates:
    """An authority, and what it vouches for, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.server = self._pair(folder / "server", self.authority)
        self.client = self._pair(folder / "client", self.authority)
        self.stranger = self._pair(folder / "stranger", trustme.CA())

    @staticmethod
    def _pair(path: Path, authority: trustme.CA) -> tuple[Path, Path]:
        issued = authority.issue_cert("127.0.0.1", "localhost")
        chain, key = path.with_suffix(".crt"), path.with_suffix(".key")
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return chain, key


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@asynccontextmanager
async def alone(folder: Path, certificates: Certificates) -> AsyncIterator[int]:
    """`python -m app coordinator` with mutual TLS, as its file says; gives its port."""
    (folder / "secret").write_text(SECRET)
    config = folder / "coordinator.toml"
    config.write_text(
        f"""
        data_dir = "{folder / "data"}"
        address = "127.0.0.1:0"
        api_secret_file = "{folder / "secret"}"
        listen_tls_cert_file = "{certificates.server[0]}"
        listen_tls_key_file = "{certificates.server[1]}"
        listen_tls_client_ca_file = "{certificates.ca}"
        """
    )
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("SCAIMIND_")
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "coordinator", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        env=environ,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"coordinator_started" not in (line := await process.stdout.readline()):
                assert line, "the coordinator did not start"
        port = re.search(rb'"port":\s*(\d+)', line)
        assert port is not None
        yield int(port[1])
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            rest = await process.stdout.read()
            assert await process.wait() == 0
        assert SECRET.encode() not in rest
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # no public way


async def ask(
    port: int,
    *,
    secret: str = SECRET,
    ca: Path | None = None,
    pair: tuple[Path, Path] | None = None,
) -> object:
    """A call of the gateway's client."""
    settings = UpstreamSettings(
        address=f"127.0.0.1:{port}",
        api_secret=secret,
        read_attempts=1,
        unary_timeout=60.0,
        tls_ca_file=str(ca or ""),
        tls_cert_file=str(pair[0]) if pair else "",
        tls_key_file=str(pair[1]) if pair else "",
    )
    channel = open_channel(settings, credentials=channel_credentials(settings))
    try:
        return await CoordinatorClient(channel=channel, settings=settings).list_jobs(CALLER)
    finally:
        await channel.close()


async def test_the_gateway_reaches_a_coordinator_with_mutual_tls(
    tmp_path: Path, certificates: Certificates
) -> None:
    ca, pair = certificates.ca, certificates.client
    async with alone(tmp_path, certificates) as port:
        everything = {"jobs": [], "next_page_token": "", "total_count": 0}
        assert await ask(port, ca=ca, pair=pair) == everything
        with pytest.raises(ApiError) as caught:
            await ask(port, secret="another-secret", ca=ca, pair=pair)
        assert caught.value.kind is errors.COORDINATOR_UNAUTHENTICATED
        for attempt in (
            ask(port),
            ask(port, ca=ca),
            ask(port, ca=ca, pair=certificates.stranger),
            ask(port, ca=certificates.stranger[0], pair=pair),
        ):
            with pytest.raises(ApiError) as caught:
                await attempt
            assert caught.value.kind is errors.COORDINATOR_UNAVAILABLE


@pytest.mark.parametrize("broken", ["missing", "not a certificate", "another key"])
async def test_files_that_cannot_be_used(
    tmp_path: Path, certificates: Certificates, broken: str
) -> None:
    chain, key = certificates.server
    (tmp_path / "text").write_text("hello")
    chain = {"missing": tmp_path / "none", "not a certificate": tmp_path / "text"}.get(
        broken, chain
    )
    if broken == "another key":
        key = certificates.client[1]
    config = config_for(tmp_path / "data", listen_tls_cert_file=chain, listen_tls_key_file=key)
    with pytest.raises(BadConfig, match="listen_tls_cert_file"):
        async with Coordinator(config):
            pass


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
async def test_plain_text_for_others_gets_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, warned: bool
) -> None:
    async with Coordinator(config_for(tmp_path, address=f"{host}:0")):
        assert ("listening_in_plain_text" in capsys.readouterr().out) is warned
