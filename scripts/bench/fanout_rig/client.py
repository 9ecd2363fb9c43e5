"""The load client: compiled at the first use, then started and asked."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.bench.fanout_rig.peers import Endpoint
from scripts.bench.fanout_rig.processes import RIG, Dialog, RigError, started

SOURCE = RIG / "client.c"


#: Of a client that unpacks gzip, which is compiled where one is needed.
UNPACKING = ("-DINFLATE", "-lz")


def compiled(options: Sequence[str] = ()) -> Path:
    """The client's executable, kept between runs under a name that follows its source."""
    source = SOURCE.read_bytes() + " ".join(options).encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scaimind-bench"
    program = cache / f"fanout-client-{hashlib.sha256(source).hexdigest()[:16]}"
    if program.exists():
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RigError(
            "the load client needs a C compiler: apt-get install gcc libc6-dev zlib1g-dev"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "client"
        subprocess.run([compiler, "-O2", "-o", made, SOURCE, *options], check=True)
        made.replace(program)
    return program


@contextlib.contextmanager
def watching(endpoint: Endpoint, watchers: int, *, core: int, log: Path) -> Iterator[Dialog]:
    """Watchers of an endpoint, all of them connected; told what to do through the dialog."""
    command = [
        str(compiled(UNPACKING if endpoint.packed else ())),
        "127.0.0.1",
        str(endpoint.port),
        endpoint.path,
        str(watchers),
        *endpoint.headers,
    ]
    with started(command, core=core, log=log, piped=True) as process:
        dialog = Dialog(process, name="load client", log=log)
        dialog.hear()
        yield dialog
