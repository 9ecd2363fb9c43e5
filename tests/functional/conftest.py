"""A whole stack, started once for the tests that do not stop it."""

from collections.abc import Iterator

import pytest

from tests.functional.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # A space in the path: a person's folders have them.
    with Stack(tmp_path_factory.mktemp("a stack") / "var") as running:
        yield running
