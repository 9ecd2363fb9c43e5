"""Commands for profiles, and a shell's completion."""

import os
import sys

import click

from scaimind.cli.main import CommandError, say
from scaimind.cli.profiles import Profile, chosen, config_file, load, store
from scaimind.client import Client
from scaimind.urls import address


@click.command()
@click.argument("url", required=False)
@click.option("--name", default="default", show_default=True, help="The profile's name.")
@click.option("--default", "default", is_flag=True, help="Use it where none is named.")
@click.option("--show", is_flag=True, help="Say where the gateway and the key are.")
@click.pass_obj
def login(profile: str | None, url: str | None, name: str, default: bool, show: bool) -> None:
    """Store an API key for a gateway in a profile.

    The key is asked for, or read from standard input or SCAIMIND_API_KEY; it is
    never an argument, which others on the machine could read.

    \b
    scaimind login https://gateway.example
    scaimind login https://gateway.example --name work < key-file
    scaimind login --show
    """
    if show:
        _show(profile)
        return
    if url is None:
        raise click.UsageError("Say which gateway: scaimind login https://gateway.example")
    root = address(url)
    key = os.environ.get("SCAIMIND_API_KEY", "")
    if not key:
        if sys.stdin.isatty():
            key = click.prompt("API key", hide_input=True)
        else:
            key = sys.stdin.readline()
    key = key.strip()
    if not key:
        raise click.UsageError("There is no key: set SCAIMIND_API_KEY, or give it by a pipe.")
    with Client(root, key, fail_fast=True) as made:
        made.cluster()
    path = store(Profile(name, root, key), default=default)
    say(f"Stored profile {name} in {path}.")


def _show(profile: str | None) -> None:
    """Print which gateway and key a command would use, and where the key is: never the key."""
    found = chosen(profile)
    if os.environ.get("SCAIMIND_API_KEY"):
        where = "SCAIMIND_API_KEY in the environment"
    elif found.name:
        where = f"api_key of [profiles.{found.name}] in {config_file()}"
    else:
        where = "not set"
    click.echo(f"Gateway: {found.url}")
    click.echo(f"Key:     {where}")


@click.command()
def profiles() -> None:
    """List the stored profiles; the default one has a star.

    \b
    scaimind profiles
    """
    config = load()
    found = config.get("profiles", {})
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise CommandError(f"{config_file()}: profiles must be a table of tables.")
    for name, profile in sorted(found.items()):
        star = "*" if name == config.get("default") else ""
        click.echo(f"{name}{star}\t{profile.get('url', '')}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    scaimind completion bash >> ~/.bashrc
    """
    from click.shell_completion import get_completion_class

    from scaimind.cli.main import COMPLETION, cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(kind(cli, {}, "scaimind", COMPLETION).source())
