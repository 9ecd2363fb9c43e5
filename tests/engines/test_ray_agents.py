"""Agents as Ray's actors, of which a stand-in for Ray has one for each name."""

import asyncio
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from app.coordinator.engines.agent.answers import DONE, Answer
from app.coordinator.engines.ray.service import Unavailable
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRef

_RUN = RunRef(job_id="a", run=1, node_id="n1", term=1)
_MODULES = ("agents", "nodes")


class Actor:
    """Answers once it has started."""

    def __init__(self, *, starts: bool) -> None:
        self._started = asyncio.Event()
        if starts:
            self._started.set()

    def __getattr__(self, method: str) -> SimpleNamespace:
        async def remote(*arguments: object) -> Answer:
            await self._started.wait()
            return DONE, method

        return SimpleNamespace(remote=remote)


class Ray:
    """The modules, and the actors by their names."""

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        #: Whether those that are made next start.
        self.starts = True
        self.modules = {name: ModuleType(name) for name in ("ray", "ray.exceptions", "ray.util")}
        scheduling = "ray.util.scheduling_strategies"
        self.modules[scheduling] = ModuleType(scheduling)
        parts: dict[str, dict[str, Any]] = {
            "ray": {"remote": lambda _: self, "kill": self.kill, "__version__": "2"},
            "ray.exceptions": {"RayError": type("RayError", (Exception,), {})},
            "ray.util": {"list_named_actors": lambda: list(self.actors)},
            scheduling: {"NodeAffinitySchedulingStrategy": lambda *_, **__: None},
        }
        for name, attributes in parts.items():
            self.modules[name].__dict__.update(attributes)

    def options(self, *, name: str, get_if_exists: bool, **_: object) -> SimpleNamespace:
        assert get_if_exists
        return SimpleNamespace(remote=lambda *_: self._made(name))

    def _made(self, name: str) -> Actor:
        return self.actors.setdefault(name, Actor(starts=self.starts))

    def kill(self, actor: Actor) -> None:
        self.actors = {name: each for name, each in self.actors.items() if each is not actor}


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    """In Ray's place."""
    found = Ray()
    for name, module in found.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield found
    for name in _MODULES:
        sys.modules.pop(f"app.coordinator.engines.ray.{name}", None)


async def test_an_actor_that_never_starts_is_replaced(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name would lead to it for ever."""
    module = importlib.import_module("app.coordinator.engines.ray.agents")
    monkeypatch.setattr(module, "_START", 0.01)
    swept: list[str] = []

    async def end_idle_workers(node_id: str) -> int:
        swept.append(node_id)
        return 1

    node = SimpleNamespace(cpus=1, gpu_count=0, memory=0, address="127.0.0.1", ray_id="f")
    nodes = SimpleNamespace(
        of=lambda _: node,
        settings_of=lambda _: SimpleNamespace(encoded=lambda: b""),
        end_idle_workers=end_idle_workers,
    )
    agents = module.RayAgents(cast(Any, nodes), namespace="x")
    ray.starts = False
    with pytest.raises(Unavailable, match="has not started"):
        await agents.ask(_RUN, "stop")
    ray.starts = True
    monkeypatch.setattr(module, "_START", 60.0)
    async with asyncio.timeout(60):
        assert await agents.ask(_RUN, "stop") == (DONE, "stop")
    # What Ray has granted to the one before is nobody's, and the node may have no more of it.
    assert swept == ["n1"]
