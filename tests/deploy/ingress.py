"""Debian's nginx in the role of the ingress controller, configured by the manifests.

What the Ingress asks of ingress-nginx by annotations is turned into the
directives that it writes for them. Only the choice of an upstream server is
done by other means there: a balancer in Lua, which has a consistent hash too, and
which forgets a server's failure at once, hence `max_fails=0`.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import yaml

from app.local.child import dying_with_parent
from tests.programs import program

INGRESS = Path(__file__).parents[2] / "deploy/components/ingress-nginx"
PATIENCE = 60.0

#: By annotation, the directive that it becomes.
_DIRECTIVES = {
    "proxy-buffering": "proxy_buffering {};",
    "proxy-http-version": "proxy_http_version {};",
    "proxy-connect-timeout": "proxy_connect_timeout {}s;",
    "proxy-read-timeout": "proxy_read_timeout {}s;",
    "proxy-send-timeout": "proxy_send_timeout {}s;",
    "proxy-next-upstream": "proxy_next_upstream {};",
    "proxy-next-upstream-tries": "proxy_next_upstream_tries {};",
    "proxy-body-size": "client_max_body_size {};",
}

_CONF = """
daemon off;
{user}
worker_processes 2;
worker_rlimit_nofile 8192;
# How long a worker of an earlier configuration may keep its streams.
worker_shutdown_timeout 1s;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {http}
    upstream gateway {{
        {balance}
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port}{protocol};
        location / {{
            {location}
            proxy_pass http://gateway;
        }}
    }}
}}
"""


def annotations() -> dict[str, str]:
    """What the Ingress asks for, without the prefix."""
    manifest = yaml.safe_load((INGRESS / "ingress.yaml").read_text())
    return {
        name.partition("/")[2]: value for name, value in manifest["metadata"]["annotations"].items()
    }


def configuration(port: int, servers: Sequence[int]) -> str:
    """What the manifests say, as a configuration for gateways on these ports."""
    asked = annotations()
    hashed_by = asked.pop("upstream-hash-by")
    values = yaml.safe_load((INGRESS / "controller-values.yaml").read_text())
    return render(
        port,
        servers,
        http=values["controller"]["config"]["http-snippet"],
        balance=f"hash {hashed_by} consistent;",
        location=[_DIRECTIVES[name].format(value) for name, value in asked.items()]
        # As ingress-nginx does without being asked.
        + ["proxy_set_header Host $host;", "proxy_set_header X-Forwarded-For $remote_addr;"],
    )


def render(
    port: int,
    servers: Sequence[int],
    *,
    http: str = "",
    balance: str = "",
    location: Sequence[str] = (),
    protocol: str = "",
) -> str:
    """Give a configuration with these directives, and otherwise nginx's defaults.

    `protocol` is what clients speak beside HTTP/1.1.
    """
    return _CONF.format(
        user="user root;" if os.geteuid() == 0 else "",
        http=http,
        balance=balance,
        servers="\n".join(f"server 127.0.0.1:{each} max_fails=0;" for each in servers),
        port=port,
        protocol=protocol and f" {protocol}",
        location="\n".join(location),
    )


class Nginx:
    """A running nginx."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    def workers(self) -> set[psutil.Process]:
        """Those of the present configuration and of earlier ones."""
        return set(psutil.Process(self.process.pid).children())

    async def reload(self, signal_number: int) -> None:
        """Have it read its configuration again; returns when the earlier workers are gone."""
        before = self.workers()
        self.process.send_signal(signal_number)
        _, left = await asyncio.to_thread(psutil.wait_procs, before, PATIENCE)
        assert not left
        assert self.workers()


@asynccontextmanager
async def nginx(folder: Path, conf: str, port: int) -> AsyncIterator[Nginx]:
    """Run nginx with a configuration until the end of the context."""
    binary = program("nginx")
    (folder / "nginx.conf").write_text(conf)
    command = (binary, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr")
    with (folder / "nginx.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *dying_with_parent(command, signal_number=signal.SIGTERM), stderr=log
        )
    try:
        async with asyncio.timeout(PATIENCE):
            while not await _listens(port):
                assert process.returncode is None, (folder / "nginx.log").read_text()
                await asyncio.sleep(0.02)
        yield Nginx(process, port)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
