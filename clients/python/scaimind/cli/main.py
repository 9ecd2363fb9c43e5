"""The command's groups, its exit statuses, and what becomes of an exception.

Each group is imported when it is used, so that `--help` is there at once.
"""

import importlib
import signal
import sys
from typing import Any, Final

import click

from scaimind import __version__

#: Exit statuses of every command; those of jobs are in `scaimind.cli.statuses`.
USAGE: Final = 2
NO_ANSWER: Final = 5
REFUSED: Final = 6
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130

#: Where each group is, and its line in `--help`.
GROUPS: Final = {
    "api": ("scaimind.cli.api:api", "Make any request of the API."),
    "completion": ("scaimind.cli.login:completion", "Print the completion script of a shell."),
    "data": ("scaimind.cli.data:data", "Check data sources, look into the data cache."),
    "evals": ("scaimind.cli.evals:evals", "Submit, get and list evaluations."),
    "jobs": ("scaimind.cli.jobs:jobs", "Submit, follow and steer training jobs."),
    "login": ("scaimind.cli.login:login", "Store an API key in a profile."),
    "nodes": ("scaimind.cli.cluster:nodes", "List, get, drain and enable nodes."),
    "profiles": ("scaimind.cli.login:profiles", "List the stored profiles."),
    "queue": ("scaimind.cli.cluster:queue", "Show the jobs that wait."),
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


class Lazy(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(GROUPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in GROUPS:
            return None
        module, _, name = GROUPS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(GROUPS.items())])


@click.command(
    cls=Lazy,
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
    # A reader that has gone ends the command in silence, as it ends cat.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        status = cli.main(prog_name="scaimind", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        status = USAGE
    except click.UsageError as error:
        error.show()
        status = USAGE
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except Exception as error:
        status = _explain(error)
    sys.stdout.flush()
    sys.exit(status or 0)


def _explain(error: Exception) -> int:
    """Print what went wrong, and what to do, on standard error; return the exit status."""
    from scaimind.errors import ApiError, ConnectionFailed, ScaiMindError

    if not isinstance(error, ScaiMindError):
        raise error
    say(str(error))
    if isinstance(error, ConnectionFailed):
        say("Check the address (SCAIMIND_URL, or 'scaimind profiles') and that the gateway runs.")
        return NO_ANSWER
    if not isinstance(error, ApiError):
        return USAGE
    for problem in error.details:
        say(f"  {problem.field}: {problem.message}")
    if error.code.startswith("AUTH_TOKEN"):
        say("Set SCAIMIND_API_KEY, or store a key with 'scaimind login'.")
    if error.request_id and error.status >= 500:
        say(f"Operators find the cause by the request id {error.request_id}.")
    return REFUSED


def say(text: Any) -> None:
    """Print a line for people on standard error."""
    click.echo(text, err=True)
