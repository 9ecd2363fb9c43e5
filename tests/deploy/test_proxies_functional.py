"""Proxies that are set wrongly: what the gateway's headers make good, and what the check finds."""

import asyncio
import statistics
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from app.cli.ingress_check import CannotCheck, check_ingress
from app.scaikey.api_keys import create_key
from tests.deploy.ingress import configuration, nginx, render
from tests.deploy.processes import Replica, replicas
from tests.hub.log_coordinator import JOB, LogCoordinator, one_job
from tests.ports import free_ports
from tests.programs import program

PATIENCE = 60.0
PATH = f"/v1/modules/scaimind/jobs/{JOB}/logs?tail=0"
ENTRIES = 30

#: nginx as it is when nobody thought of streams: HTTP/1.0 to the gateway, everything buffered.
DEFAULTS: list[str] = []
GZIP = ["gzip on;", "gzip_types *;", "gzip_min_length 1;", "gzip_proxied any;"]
#: It is told not to listen when the gateway says that this is not to be buffered.
DEAF = ["proxy_buffering on;", "proxy_ignore_headers X-Accel-Buffering;"]

Configure = Callable[[int, int], str]


def with_directives(*directives: str) -> Configure:
    return lambda port, server: render(port, [server], location=directives)


def as_the_manifests_say(port: int, server: int) -> str:
    return configuration(port, [server])


@pytest.fixture
async def coordinator() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        yield running


@pytest.fixture
def key(migrated_dsn: str) -> str:
    return create_key(migrated_dsn, tenant_id="acme", user_id="ann", roles=["tenant_viewer"]).secret


@pytest.fixture
async def gateway(coordinator: LogCoordinator, migrated_dsn: str) -> AsyncIterator[Replica]:
    async with replicas(free_ports(1), coordinator=coordinator.address, dsn=migrated_dsn) as made:
        yield made[0]


class Stream:
    """A client that accepts gzip, and undoes it as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.head = ""
        self._unzip = zlib.decompressobj(wbits=31)
        self._text = b""

    async def open(self, key: str) -> None:
        self.writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Accept-Encoding: gzip\r\n\r\n".encode()
        )
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert " 200 " in self.head.split("\r\n")[0], self.head

    @property
    def zipped(self) -> bool:
        return "content-encoding: gzip" in self.head

    async def until(self, text: str) -> None:
        """Read until the stream has said this."""
        while text.encode() not in self._text:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            assert size, f"the stream ended after {self._text!r}"
            data = (await self._reader.readexactly(size + 2))[:-2]
            self._text += self._unzip.decompress(data) if self.zipped else data


@pytest.mark.parametrize(
    ("configure", "zipped"),
    [
        pytest.param(as_the_manifests_say, False, id="the manifests"),
        pytest.param(with_directives(*DEFAULTS), False, id="nginx's defaults"),
        pytest.param(with_directives("proxy_buffering on;", *GZIP), True, id="buffering and gzip"),
    ],
)
async def test_an_entry_arrives_before_the_next_one_is_written(
    coordinator: LogCoordinator,
    gateway: Replica,
    key: str,
    configure: Configure,
    zipped: bool,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    (port,) = free_ports(1)
    latencies = []
    async with nginx(tmp_path, configure(port, gateway.port), port):
        stream = Stream(*await asyncio.open_connection("127.0.0.1", port))
        async with asyncio.timeout(PATIENCE):
            await stream.open(key)
            assert stream.zipped is zipped
            assert "cache-control: no-cache, no-transform" in stream.head
            await stream.until("event: bookmark")
            for number in range(ENTRIES):
                written = time.perf_counter()
                await coordinator.log(f"entry {number}.")
                await stream.until(f"entry {number}.")
                latencies.append((time.perf_counter() - written) * 1000)
        stream.writer.close()
        await stream.writer.wait_closed()
    milliseconds = f"median {statistics.median(latencies):.1f}, longest {max(latencies):.1f}"
    record_property("latency through nginx, ms", milliseconds)


@pytest.mark.parametrize(
    ("configure", "findings"),
    [
        pytest.param(as_the_manifests_say, [], id="the manifests"),
        pytest.param(with_directives(*GZIP), ["ingress_compresses"], id="gzip"),
        pytest.param(with_directives(*DEAF), ["ingress_buffers"], id="deaf to the headers"),
    ],
)
async def test_the_check_finds_what_the_gateway_cannot_make_good(
    coordinator: LogCoordinator,
    gateway: Replica,
    key: str,
    configure: Configure,
    findings: list[str],
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    # What is there to be found is that nothing comes for so long.
    patience = 3.0 if findings else PATIENCE
    async with nginx(tmp_path, configure(port, gateway.port), port):
        found = await check_ingress(
            f"http://127.0.0.1:{port}", key=key, job_id=JOB, patience=patience
        )
    assert found == findings


async def test_the_check_says_why_it_cannot_check(gateway: Replica, key: str) -> None:
    url = f"http://127.0.0.1:{gateway.port}"
    with pytest.raises(CannotCheck, match="answered 404"):
        await check_ingress(url, key=key, job_id="another")
    with pytest.raises(CannotCheck, match="cannot be reached"):
        await check_ingress(f"http://127.0.0.1:{free_ports(1)[0]}", key=key, job_id=JOB)


async def test_over_http_2_a_browser_can_have_more_than_six_streams(
    coordinator: LogCoordinator, gateway: Replica, key: str, tmp_path: Path
) -> None:
    curl = program("curl")
    (port,) = free_ports(1)
    streams = 20
    # What it says of each stream, one a line, when all of them have ended.
    tell = ("-o", "/dev/null", "-w", "%{http_code} %{http_version} %{num_connects}\n")
    url = f"https://localhost:{port}{PATH}"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "localhost.pem"
    )
    tls = "ssl_certificate localhost.pem; ssl_certificate_key localhost.pem;"
    async with nginx(tmp_path, render(port, [gateway.port], http=tls, protocol="ssl http2"), port):
        process = await asyncio.create_subprocess_exec(
            *(curl, "-sS", "--parallel", "--parallel-max", str(streams)),
            *("--cacert", str(tmp_path / "ca.pem"), "-H", f"Authorization: Bearer {key}"),
            *(argument for _ in range(streams) for argument in (*tell, url)),
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            while await gateway.metric("scaimind_watchers") < streams:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
            await coordinator.end()
            output, _ = await process.communicate()
    ended = [line.split() for line in output.decode().splitlines()]
    assert [(status, version) for status, version, _ in ended] == [("200", "2")] * streams
    assert sum(int(connections) for _, _, connections in ended) == 1
