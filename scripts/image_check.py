"""Follows the Dockerfile into clean roots and runs what comes out, without a container engine.

The Dockerfile itself is read: no step is repeated here. Each stage gets an
empty root; in place of the base image, this system's /usr and /etc are mounted
into it read-only, with this program's Python at /usr/local, where the base
image has its own. RUN steps run there by chroot. The last stage is then
started as the image would be: as its numeric user, as process 1 of a process
namespace of its own, with the whole root read-only and no writable place at
all. It has to answer, its HEALTHCHECK has to agree, and SIGTERM has to end it
with status 0.

    sudo .venv/bin/python scripts/image_check.py

What this cannot see: whether the base image's own Python and libraries do as
well as this system's, and the size of the layers. Linux, as root; pip asks
the package registry.
"""

import argparse
import contextlib
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0
#: Instructions that only describe.
_METADATA = {"LABEL", "EXPOSE", "STOPSIGNAL"}
#: What pip may have to be told about the way to its registry.
_FROM_OUTSIDE = ("PIP_CERT", "PIP_INDEX_URL", "PIP_PROXY", "HTTPS_PROXY", "https_proxy")


class CheckFailed(Exception):
    """The image would not work; the text says why."""


@dataclass
class Stage:
    """A stage on its way: its root and what its instructions set so far."""

    base: str
    name: str
    root: Path
    workdir: str = "/"
    user: str = "0:0"
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    labels: str = ""
    stop_signal: str = ""

    def expand(self, text: str) -> str:
        """Replace `$NAME` and `${NAME}` by the stage's arguments and variables."""
        known = {**self.args, **self.env}
        return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: known.get(m[1] or m[2], ""), text)

    def path(self, inside: str) -> Path:
        """Where a path of the image is now."""
        return self.root / (Path("/", self.workdir) / inside).relative_to("/")


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Give the instructions, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


class Builder:
    """Follows a Dockerfile, stage by stage."""

    def __init__(self, folder: Path, *, context: Path, build_args: Mapping[str, str]) -> None:
        self._folder = folder
        self._context = context
        self._build_args = build_args
        self._stages: list[Stage] = []
        self._global_args: dict[str, str] = {}

    def build(self, dockerfile: Path) -> Stage:
        """Follow it to the end; the last stage."""
        for name, rest in instructions(dockerfile):
            say(f"{name} {rest}")
            if name == "FROM":
                self._from(rest)
            elif name == "ARG":
                self._arg(rest)
            else:
                self._step(self._stages[-1], name, rest)
        return self._stages[-1]

    def _from(self, rest: str) -> None:
        base, _, name = rest.partition(" AS ")
        root = self._folder / f"stage-{len(self._stages)}"
        for mountpoint in ("usr", "etc", "proc", "dev", "tmp"):
            (root / mountpoint).mkdir(parents=True)
        for link in ("bin", "lib", "lib64", "sbin"):
            if Path("/", link).is_symlink():
                (root / link).symlink_to(Path("/", link).readlink())
        stage = Stage(base=base, name=name, root=root)
        # The official Python images have it in ld.so's cache.
        stage.env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LD_LIBRARY_PATH": "/usr/local/lib"}
        self._stages.append(stage)

    def _arg(self, rest: str) -> None:
        name, _, default = rest.partition("=")
        args = self._stages[-1].args if self._stages else self._global_args
        args[name] = self._build_args.get(name, default or self._global_args.get(name, ""))

    def _step(self, stage: Stage, name: str, rest: str) -> None:
        match name:
            case "WORKDIR":
                stage.workdir = str(Path(stage.workdir, stage.expand(rest)))
                stage.path("").mkdir(parents=True, exist_ok=True)
            case "ENV":
                for pair in shlex.split(rest):
                    variable, _, value = pair.partition("=")
                    stage.env[variable] = stage.expand(value)
            case "USER":
                stage.user = rest
            case "COPY":
                self._copy(stage, stage.expand(rest))
            case "RUN":
                outside = {name: os.environ[name] for name in _FROM_OUTSIDE if name in os.environ}
                run = inside(stage, ["/bin/sh", "-c", rest], user="0:0", writable=True)
                # As the build arguments are there, so is what pip needs here.
                done = subprocess.run(run, env={**stage.args, **stage.env, **outside}, check=False)
                if done.returncode:
                    raise CheckFailed(f"RUN {rest} left with status {done.returncode}")
            case "ENTRYPOINT":
                stage.entrypoint = _exec_form(name, rest)
            case "CMD":
                stage.command = _exec_form(name, rest)
            case "HEALTHCHECK":
                stage.healthcheck = _exec_form(name, rest.partition("CMD ")[2])
            case _ if name not in _METADATA:
                raise CheckFailed(f"{name}: this check does not know how to follow it")

    def _copy(self, stage: Stage, rest: str) -> None:
        words = shlex.split(rest)
        if words[0].startswith("--from="):
            (source,) = (each for each in self._stages if f"--from={each.name}" == words[0])
            found, target = source.root / words[1].lstrip("/"), stage.path(words[2])
            shutil.copytree(found, target, symlinks=True, dirs_exist_ok=True)
            return
        ignored = Ignored(self._context)
        *sources, destination = words
        for each in sources:
            found, target = self._context / each, stage.path(destination)
            if ignored.leaves_out(found):
                raise CheckFailed(f"COPY {each}: .dockerignore leaves it out")
            if found.is_dir():
                shutil.copytree(found, target, ignore=ignored.within, dirs_exist_ok=True)
            else:
                shutil.copy(found, target)


class Ignored:
    """What .dockerignore leaves out; the last pattern that fits counts."""

    def __init__(self, context: Path) -> None:
        self._context = context
        lines = (context / ".dockerignore").read_text().splitlines()
        self._patterns = [line for line in lines if line and not line.startswith("#")]

    def leaves_out(self, path: Path) -> bool:
        """Tell whether a path of the context is not to be copied."""
        name = path.relative_to(self._context).as_posix()
        out = False
        for pattern in self._patterns:
            wanted = pattern.lstrip("!").removeprefix("**/")
            anywhere = pattern.startswith("**/")
            fits = fnmatch.fnmatch(path.name if anywhere else name, wanted)
            if fits or (not anywhere and name.startswith(f"{wanted}/")):
                out = not pattern.startswith("!")
        return out

    def within(self, folder: str, names: Sequence[str]) -> list[str]:
        """What `shutil.copytree` is to leave out of a folder."""
        return [name for name in names if self.leaves_out(Path(folder, name))]


def _exec_form(name: str, rest: str) -> list[str]:
    # The shell form would make a shell process 1, which passes no signal on.
    try:
        words: list[str] = json.loads(rest)
    except ValueError:
        raise CheckFailed(f"{name} {rest}: not in the exec form") from None
    return words


def inside(stage: Stage, command: Sequence[str], *, user: str, writable: bool) -> list[str]:
    """Give a command line that runs `command` in the stage's root, as its process 1."""
    root = shlex.quote(str(stage.root))
    again = "" if writable else f"mount -o remount,bind,ro {root}"
    script = f"""
        set -e
        mount --bind {root} {root}
        {again}
        for each in usr etc; do
            mount --bind /$each {root}/$each
            mount -o remount,bind,ro {root}/$each
        done
        mount --bind {shlex.quote(sys.base_prefix)} {root}/usr/local
        mount -o remount,bind,ro {root}/usr/local
        mount --rbind /dev {root}/dev
        mount -t proc proc {root}/proc
        exec /usr/sbin/chroot --userspec={user} {root} \\
            /bin/sh -c 'cd "$1"; shift; exec "$@"' sh "$@"
    """
    return [
        *("/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("/bin/sh", "-c", script, "sh", stage.workdir, *command),
    ]


@contextlib.contextmanager
def running(stage: Stage, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the image with these settings; what it says goes to stderr."""
    process = subprocess.Popen(
        inside(stage, [*stage.entrypoint, *stage.command], user=stage.user, writable=False),
        env={**stage.env, **settings},
        stdout=sys.stderr,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def check(stage: Stage, settings: Mapping[str, str]) -> None:
    """Start it, ask it, stop it. Raises `CheckFailed`."""
    require(stage.user.split(":")[0].isdecimal(), "USER is not a number")
    require(not stage.user.startswith("0"), "USER is root")
    require(bool(stage.healthcheck), "there is no HEALTHCHECK")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environ = {**settings, "SCAIMIND_PORT": str(port)}
    with running(stage, environ) as process:
        await_answer(process, f"{url}/health")
        first = psutil.Process(process.pid).children()[0]
        require(first.uids().effective == int(stage.user.split(":")[0]), "it runs as another user")
        status, body = ask(f"{url}/v1/modules/scaimind/jobs")
        require(
            status == 401 and b"AUTH_TOKEN_MISSING" in body, f"/jobs answered {status} {body!r}"
        )
        status, body = ask(f"{url}/metrics")
        require(status == 200 and b"scaimind_watchers" in body, f"/metrics answered {status}")
        run = inside(stage, stage.healthcheck, user=stage.user, writable=False)
        require(
            subprocess.run(run, env={**stage.env, **environ}, check=False).returncode == 0,
            "the HEALTHCHECK failed",
        )
        first.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE)
        require(status == 0, f"after SIGTERM it left with status {status}")
    run = inside(stage, stage.healthcheck, user=stage.user, writable=False)
    gone = subprocess.run(run, env={**stage.env, **environ}, check=False, capture_output=True)
    require(gone.returncode == 1, "the HEALTHCHECK does not notice that the gateway is gone")


def await_answer(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until something answers with 200."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        require(process.poll() is None, f"it left with status {process.returncode}")
        with contextlib.suppress(OSError):
            if ask(url)[0] == 200:
                return
        time.sleep(0.05)
    raise CheckFailed(f"{url} did not answer within {PATIENCE:.0f} s")


def ask(url: str) -> tuple[int, bytes]:
    """Give the status and the body."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def require(holds: bool, problem: str) -> None:
    """Raise `CheckFailed` unless it holds."""
    if not holds:
        raise CheckFailed(problem)


def say(text: str) -> None:
    """Tell what is being done."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Check; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        say("image_check: chroot and mounts need root")
        return 2
    build_args = dict(each.split("=", 1) for each in asked.build_arg)
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        # Another user has to pass it.
        Path(folder).chmod(0o755)
        try:
            builder = Builder(Path(folder), context=PROJECT, build_args=build_args)
            image = builder.build(PROJECT / "Dockerfile")
            # Nobody is there: it has to start, and to say so, all the same.
            check(
                image,
                {
                    "SCAIMIND_DATABASE_DSN": "postgresql://nobody@127.0.0.1:1/none",
                    "SCAIMIND_UPSTREAM_ADDRESS": "127.0.0.1:1",
                    "SCAIMIND_UPSTREAM_API_SECRET": "image-check",
                },
            )
        except CheckFailed as error:
            say(f"image_check: {error}")
            return 1
    say("image_check: built, answered as an unprivileged user on a read-only root, stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
