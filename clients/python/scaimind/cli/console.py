"""The console in a browser, signed in."""

import html
import os
import tempfile
import webbrowser
from pathlib import Path
from urllib.parse import quote

import click

from scaimind.cli.main import say
from scaimind.cli.profiles import chosen
from scaimind.cli.session import client, resolve

_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}">
<title>ScaiMind</title>
<p><a href="{address}">Open the console</a></p>
"""


@click.command()
@click.argument("job_id", required=False)
@click.option("--print", "printed", is_flag=True, help="Print the address; open no browser.")
@click.pass_obj
def console(profile: str | None, job_id: str | None, printed: bool) -> None:
    """Open the console in a browser, signed in; with a job's id at that job.

    The address holds a code that signs in once, within a minute. The browser gets it
    by a file that only you can read: arguments of programs can be seen by others.

    \b
    scaimind console
    scaimind console JOB
    """
    with client(profile) as made:
        where = "" if job_id is None else f"/jobs/{quote(resolve(made, job_id), safe='')}"
        code = made.request("POST", "/console-codes")["data"]["code"]
    address = f"{chosen(profile).url}/console{where}#code={code}"
    if printed:
        click.echo(address)
        return
    try:
        opened = webbrowser.open(_hidden(address).as_uri())
    except (OSError, webbrowser.Error):
        opened = False
    say("Opened the console. If no page has come up:" if opened else "Open within a minute:")
    say(address)


def _hidden(address: str) -> Path:
    """Write a page that leads to an address, for the user's eyes alone; the last one goes."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "scaimind"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, written = tempfile.mkstemp(dir=folder, suffix=".html")  # mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_PAGE.format(address=html.escape(address)))
    return Path(written).replace(folder / "console.html")
