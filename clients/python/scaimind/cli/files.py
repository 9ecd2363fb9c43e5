"""Commands for files on the drive."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from scaimind.cli.main import CommandError, say
from scaimind.cli.output import output_option, printable, show
from scaimind.cli.session import client
from scaimind.cli.status_line import StatusLine, bar, size

if TYPE_CHECKING:
    from scaimind.client import Client
    from scaimind.core.files import Entry

SCHEME: Final = "scaidrive://"
#: The same, of the own tenant.
SHORT: Final = "drive:"


def is_remote(name: str) -> bool:
    """Whether an argument names a file of the drive."""
    return name.startswith((SCHEME, SHORT))


def remote_path(made: "Client", name: str) -> str:
    """Return the path of an argument, with or without a scheme. Raises CommandError if it is
    another tenant's."""
    if not name.startswith(SCHEME):
        return name.removeprefix(SHORT).strip("/")
    tenant, _, path = name.removeprefix(SCHEME).partition("/")
    root = made.files.folder().uri
    if root.rstrip("/") != f"{SCHEME}{tenant}":
        raise CommandError(f"{name}: is another tenant's; yours is {root}.")
    return path.strip("/")


@click.command()
@click.argument("path", default="")
@output_option
@click.pass_obj
def ls(profile: str | None, path: str, output: str | None) -> None:
    """List a folder of the drive.

    \b
    scaimind ls
    scaimind ls models/first-steps
    scaimind ls scaidrive://local/models -o json
    """
    with client(profile) as made:
        show(
            made.files.list(remote_path(made, path)),
            output,
            [
                ("NAME", lambda each: each.name + ("/" if each.kind == "folder" else "")),
                ("BYTES", lambda each: each.size_bytes),
                ("MODIFIED", lambda each: each.modified_at),
            ],
            wide=[("KIND", lambda each: each.kind), ("VERSION", lambda each: each.etag)],
            name=lambda each: str(each.name),
        )


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Folders with all that is in them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rm(profile: str | None, paths: tuple[str, ...], recursive: bool, yes: bool) -> None:
    """Remove files of the drive. On a terminal it asks before a folder goes.

    \b
    scaimind rm data/corpus.jsonl
    scaimind rm -r models/first-steps
    """
    with client(profile) as made:
        found = [remote_path(made, each) for each in paths]
        if recursive and not yes and sys.stdin.isatty():
            click.confirm(f"Remove {', '.join(found)}?", abort=True, err=True)
        for each in found:
            made.files.remove(each, recursive=recursive)


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("-r", "--recursive", is_flag=True, help="A folder: what is not there yet.")
@click.option("--delete", is_flag=True, help="Remove what went there before and is gone here.")
@click.pass_obj
def cp(profile: str | None, source: str, destination: str, recursive: bool, delete: bool) -> None:
    """Copy files to the drive, or from it.

    What is on the drive is named drive:PATH, or scaidrive://TENANT/PATH as jobs
    name it. A destination that ends with a slash, or is a folder, gets the file
    under its name. Of a folder go the files that .gitignore and .scaimindignore
    let through, and of them those that changed.

    \b
    scaimind cp corpus.jsonl drive:data/
    scaimind cp -r project drive:projects/
    scaimind cp drive:models/first-steps/model.npz .
    scaimind cp drive:models/first-steps/report.json -
    """
    if is_remote(source) == is_remote(destination):
        raise click.UsageError(f"One of the two is on the drive: write {SHORT}PATH.")
    with client(profile) as made, StatusLine() as line:
        if is_remote(destination):
            _bring(made, Path(source), destination, line, recursive=recursive, delete=delete)
        else:
            _fetch(made, remote_path(made, source), destination, line, recursive=recursive)


def _bring(
    made: "Client",
    source: Path,
    destination: str,
    line: StatusLine,
    *,
    recursive: bool,
    delete: bool,
) -> None:
    path = remote_path(made, destination)
    if not source.exists():
        raise CommandError(f"{source}: there is no such file or folder.")
    into = destination.endswith(("/", ":")) or path == "" or made.files.is_folder(path)
    target = f"{path}/{source.resolve().name}".strip("/") if into else path
    if not source.is_dir():
        whole = source.stat().st_size
        made.files.upload(source, target, progress=lambda sent: _tell(line, target, sent, whole))
        return
    if not recursive:
        raise click.UsageError(f"{source} is a folder; copy it with -r.")
    from scaimind.selection import select

    found = select(source)
    for each in found.left_out:
        say(f"Left out {printable(each)}.")
    done = made.files.sync(found.files, target, delete=delete, progress=line.show)
    line.show("")
    say(f"{len(done.stored)} sent, {len(done.unchanged)} unchanged, {len(done.removed)} removed")


def _fetch(
    made: "Client", path: str, destination: str, line: StatusLine, *, recursive: bool
) -> None:
    if destination == "-":
        for piece in made.files.read(path):
            sys.stdout.buffer.write(piece)
        return
    target = Path(destination)
    if target.is_dir() or destination.endswith("/"):
        target /= path.rpartition("/")[2] or "drive"
    target.parent.mkdir(parents=True, exist_ok=True)
    if not made.files.is_folder(path):
        _fetch_file(made, path, target, line)
        return
    if not recursive:
        raise click.UsageError(f"{path or SHORT} is a folder; copy it with -r.")
    for below, entry in _walk(made, path, ""):
        if entry.kind != "file":
            say(f"Left out {printable(below)}: {entry.kind}")
            continue
        (target / below).parent.mkdir(parents=True, exist_ok=True)
        _fetch_file(made, f"{path}/{below}", target / below, line)


def _fetch_file(made: "Client", path: str, target: Path, line: StatusLine) -> None:
    if target.is_dir():
        raise CommandError(f"{target}: is a folder.")
    made.files.download(path, target, progress=lambda got, whole: _tell(line, path, got, whole))


def _walk(made: "Client", path: str, below: str) -> "Iterator[tuple[str, Entry]]":
    """Yield what is in a folder, folders gone into, with its path below the first one."""
    for entry in made.files.list(f"{path}/{below}"):
        # What a job has named may be no name here.
        if not entry.addressable or "/" in entry.name or entry.name in ("", ".", ".."):
            say(f"Left out {printable(below + entry.name)}: it cannot be named")
        elif entry.kind == "folder":
            yield from _walk(made, path, f"{below}{entry.name}/")
        else:
            yield below + entry.name, entry


def _tell(line: StatusLine, name: str, done: int, whole: int) -> None:
    line.show(f"{bar(done / max(whole, 1))} {size(done)} of {size(whole)}  {printable(name)}")
