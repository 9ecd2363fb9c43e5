"""Packages that others import only because they are installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Have what is imported within find none of these packages, unless they are imported already.

    None in `sys.modules` says so (Python's reference, 5.3.1).
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]  # typeshed knows no None there
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
