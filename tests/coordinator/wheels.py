"""Tiny packages for tests: wheels, a source distribution that builds itself, and an index."""

import asyncio
import hashlib
import io
import tarfile
import zipfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, str] | None = None,
    requires: Iterable[str] = (),
    scripts: Mapping[str, str] | None = None,
) -> Path:
    """A wheel with a module of its name, unless it is given other files."""
    about = f"{name}-{version}.dist-info"
    content = dict(files or {f"{name}.py": f"VERSION = {version!r}\n"})
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    content[f"{about}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    )
    content[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if scripts:
        points = "".join(f"{script} = {where}\n" for script, where in scripts.items())
        content[f"{about}/entry_points.txt"] = f"[console_scripts]\n{points}"
    content[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{about}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return wheel


#: Builds a wheel of itself with nothing but Python; `SEEN` in its module is what it has seen.
_BACKEND = """
import os, zipfile

def see():
{see}

def build_wheel(folder, config_settings=None, metadata_directory=None):
    about = "{name}-1.0.dist-info"
    files = {{
        "{name}.py": f"SEEN = {{see()!r}}\\n",
        about + "/METADATA": "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n",
        about + "/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    files[about + "/RECORD"] = "".join(path + ",,\\n" for path in files)
    name = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return name
"""


def make_sdist(folder: Path, name: str, see: str) -> Path:
    """A source distribution; `see` is the body of a function that runs while it is built."""
    body = "\n".join(f"    {line}" for line in see.strip().splitlines())
    content = {
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\n"
        "backend-path = ['.']\n"
        f"[project]\nname = '{name}'\nversion = '1.0'\n",
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        "backend.py": _BACKEND.format(name=name, see=body),
    }
    folder.mkdir(parents=True, exist_ok=True)
    sdist = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for path, text in content.items():
            member = tarfile.TarInfo(f"{name}-1.0/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return sdist


class Index:
    """A package index (PEP 503) on loopback; it can hold what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = ""
        #: The paths that were asked for.
        self.asked: list[str] = []
        #: Set once a file is asked for, and what lets it go.
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def project(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        found = sorted(self._folder.glob(f"{request.match_info['name']}-*"))
        if not found:
            raise web.HTTPNotFound
        links = "".join(
            f'<a href="/files/{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">'
            f"{path.name}</a>"
            for path in found
        )
        return web.Response(text=f"<html><body>{links}</body></html>", content_type="text/html")

    async def file(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.reached.set()
        await self.gate.wait()
        return web.FileResponse(self._folder / request.match_info["name"])


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Index]:
    """An index of a folder's packages."""
    index = Index(folder)
    app = web.Application()
    app.router.add_get("/simple/{name}/", index.project)
    app.router.add_get("/files/{name}", index.file)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        _, port = runner.addresses[0][:2]
        index.url = f"http://127.0.0.1:{port}/simple"
        yield index
    finally:
        index.gate.set()
        await runner.cleanup()
