"""Commands run within this process and configure its log."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def the_log_is_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)
