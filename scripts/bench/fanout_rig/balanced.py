"""Two gateways behind nginx, as deploy/nginx has it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scripts.bench.fanout_rig.peers import Endpoint, Gateway, await_port, free_port
from scripts.bench.fanout_rig.processes import RigError, started

CONFIGURATION = Path(__file__).parents[3] / "deploy/nginx/scaimind.conf"
#: The ports in that file: nginx's own, and those of the gateways.
PORTS = (8080, 8081, 8082)

#: Given `{user}` and `{connections}`. One worker, as nchan has.
_MAIN = """
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {connections};
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include scaimind.conf;
}}
"""


@contextlib.contextmanager
def balanced(
    gateway: Gateway, *, coordinator: str, watchers: int, core: int, log: Path
) -> Iterator[Endpoint]:
    """The stream of the one job through nginx, whose core the gateways share."""
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None:
        raise RigError("nginx is needed: apt-get install nginx")
    folder = log.parent / f"nginx-{free_port()}"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        gateways = [
            stack.enter_context(
                gateway.serving(
                    coordinator=coordinator,
                    watchers=watchers,
                    core=core,
                    log=log.with_name(f"gateway-{number}"),
                )
            )
            for number in (1, 2)
        ]
        port, text = free_port(), CONFIGURATION.read_text()
        for given, used in zip(PORTS, (port, *(each.port for each in gateways)), strict=True):
            text = text.replace(f"127.0.0.1:{given}", f"127.0.0.1:{used}")
        (folder / "scaimind.conf").write_text(text)
        (folder / "nginx.conf").write_text(
            _MAIN.format(
                user="user root;" if os.geteuid() == 0 else "",
                # Two for each watcher.
                connections=3 * watchers + 500,
            )
        )
        command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        process = stack.enter_context(started(command, core=core, log=log))
        await_port(process, port, log)
        others = tuple(each.pid for each in gateways)
        yield replace(gateways[0], pid=process.pid, port=port, others=others)
