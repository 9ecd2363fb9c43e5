"""A whole stack, started once for the tests that do not stop it."""

from collections.abc import Iterator

import pytest

from tests.functional.stack import Stack, with_profile


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # A space in the path: a person's folders have them.
    home = tmp_path_factory.mktemp("a stack")
    with Stack(home / "var", **with_profile(home)) as running:
        yield running
