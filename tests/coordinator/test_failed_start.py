"""A start that fails closes what it has opened, in the order of a stop."""

import socket
from pathlib import Path
from typing import Any

import pytest

from app.coordinator import server
from app.coordinator.engines.opening import open_engine
from app.coordinator.ownership.state import open_sole_state
from app.coordinator.server import Coordinator
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig


async def test_the_store_is_closed_after_what_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[Any] = []
    usable: list[int] = []

    def opened(*args: Any, **kwargs: Any) -> Any:
        state = open_sole_state(*args, **kwargs)
        stores.append(state.store)
        return state

    async def engine_of(*args: Any, **kwargs: Any) -> Any:
        engine = await open_engine(*args, **kwargs)
        close = engine.close

        async def closed() -> None:
            # Raises if the store is closed.
            store = await stores[0]()
            usable.append(len(list(store.unfinished())))
            await close()

        monkeypatch.setattr(engine, "close", closed)
        return engine

    monkeypatch.setattr(server, "open_sole_state", opened)
    monkeypatch.setattr(server, "open_engine", engine_of)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = CoordinatorConfig(
            api_secret="a-secret-of-16-or-more",
            data_dir=tmp_path / "data",
            address="127.0.0.1:0",
            isolation="landlock",
            metrics_address=f"127.0.0.1:{taken.getsockname()[1]}",
        )
        with pytest.raises((BadConfig, OSError)):
            await Coordinator(config).__aenter__()
    assert usable == [0]
