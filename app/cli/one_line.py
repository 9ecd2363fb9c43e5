"""How a command reports what a person can mend."""

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors that a person can mend into one line. A bug keeps its traceback."""
    try:
        yield
    except kinds as error:
        raise click.ClickException(str(error)) from error
