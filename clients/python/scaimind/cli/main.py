"""The command's groups, its exit statuses, and what becomes of an exception.

Each group is imported when it is used, so that `--help` is there at once.
"""

import importlib
import io
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from scaimind import __version__

#: Exit statuses of every command; those of jobs are in `scaimind.cli.statuses`.
USAGE: Final = 2
NO_ANSWER: Final = 5
REFUSED: Final = 6
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130
#: What a shell sets to have words completed.
COMPLETION: Final = "_SCAIMIND_COMPLETE"

#: Where each command is, and its line in `--help`.
COMMANDS: Final = {
    "api": ("scaimind.cli.api:api", "Make any request of the API."),
    "completion": ("scaimind.cli.login:completion", "Print the completion script of a shell."),
    "console": ("scaimind.cli.console:console", "Open the console in a browser, signed in."),
    "cp": ("scaimind.cli.files:cp", "Copy files to the drive, or from it."),
    "data": ("scaimind.cli.data:data", "Check data sources, look into the data cache."),
    "evals": ("scaimind.cli.evals:evals", "Submit, get and list evaluations."),
    "jobs": ("scaimind.cli.jobs:jobs", "Submit, follow and steer training jobs."),
    "login": ("scaimind.cli.login:login", "Store an API key in a profile."),
    "ls": ("scaimind.cli.files:ls", "List a folder of the drive."),
    "nodes": ("scaimind.cli.cluster:nodes", "List, get, drain and enable nodes."),
    "profiles": ("scaimind.cli.login:profiles", "List the stored profiles."),
    "queue": ("scaimind.cli.cluster:queue", "Show the jobs that wait."),
    "rm": ("scaimind.cli.files:rm", "Remove files of the drive."),
}

EPILOG = """
\b
Examples:
  scaimind login https://gateway.example
  scaimind jobs submit train.py --data corpus.jsonl --gpus 1 --follow
  scaimind jobs logs -f JOB
  scaimind jobs wait JOB && scaimind jobs get JOB -o json

\b
Exit status: 0 done, 2 wrong usage, 5 no answer, 6 refused by the API,
  124 time-out, 130 Ctrl-C. Of 'wait', 'logs -f' and 'submit --follow' it is the
  job's: 0 COMPLETED, 1 FAILED, 3 CANCELLED, 4 PREEMPTED.

SCAIMIND_URL and SCAIMIND_API_KEY, or SCAIMIND_PROFILE, choose the gateway.
"""


class CommandError(click.ClickException):
    """What was asked for cannot be done, and the command's help would not say why."""

    exit_code = USAGE


class Lazy(click.Group):
    """A group whose commands are imported when they are used.

    `places` has by name where a command is, `module:name`, and its line in `--help`.
    """

    def __init__(
        self, *args: Any, places: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._places = dict(places or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in self._places:
            return None
        module, _, name = self._places[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(self._places.items())])


@click.command(
    cls=Lazy,
    places=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--profile", metavar="NAME", help="Profile to use instead of the default one.")
@click.version_option(__version__, prog_name="scaimind")
@click.pass_context
def cli(ctx: click.Context, profile: str | None) -> None:
    """Train models on a ScaiMind cluster: submit jobs, follow their logs, steer them."""
    ctx.obj = profile


def main() -> None:
    """Run the command and exit with its status."""
    # Text of others may have what the terminal's encoding lacks, or halves of characters.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe has gone: the command ends in silence, as it ends cat. The signal
        # is ignored until here, since it would also end the command when a connection breaks.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(status)


def _run() -> int:
    try:
        if COMPLETION in os.environ:
            cli.main(prog_name="scaimind", complete_var=COMPLETION)
        # Not cli.main(): it takes a broken pipe and Ctrl-C for errors of status 1.
        with cli.make_context("scaimind", sys.argv[1:]) as context:
            cli.invoke(context)
        return 0
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else 0 if exit.code is None else USAGE
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        say(_usage(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        if sys.stderr.isatty():
            # The shell's prompt begins on a line of its own.
            say("")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        say(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return USAGE
    except Exception as error:
        return _explain(error)


def _usage(error: click.ClickException) -> str:
    """Return what is wrong with a command line, in one line, and where to look."""
    text = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return text if context is None else f"{text} Try '{context.command_path} --help'."


def _explain(error: Exception) -> int:
    """Print what went wrong, and what to do, on standard error; return the exit status."""
    from scaimind.cli.output import printable
    from scaimind.errors import ApiError, ConnectionFailed, ScaiMindError

    if not isinstance(error, ScaiMindError):
        raise error
    details = error.details if isinstance(error, ApiError) else ()
    if not details:
        say(printable(str(error)))
    if isinstance(error, ConnectionFailed):
        say("Check the address (SCAIMIND_URL, or 'scaimind profiles') and that the gateway runs.")
        return NO_ANSWER
    if not isinstance(error, ApiError):
        return USAGE
    for problem in details:
        say(printable(f"{problem.field}: {problem.message}"))
    if error.code.startswith("AUTH_TOKEN"):
        say("Set SCAIMIND_API_KEY, or store a key with 'scaimind login'.")
    if error.request_id and error.status >= 500:
        say(f"Operators find the cause by the request id {error.request_id}.")
    return REFUSED


def say(text: Any) -> None:
    """Print a line for people on standard error."""
    click.echo(text, err=True)
