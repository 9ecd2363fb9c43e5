"""The actor on a node, with what it needs where the nodes share no disk."""

from pathlib import Path

from typing_extensions import override

from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.agent.part_files import PartFiles
from app.coordinator.engines.programs import Programs
from app.coordinator.engines.ray.agent_host import AgentHost
from app.coordinator.execution.on_nodes.opening import open_node_files


class NodeAgentHost(AgentHost):
    """Fetches a run's files from the drive and brings them back there."""

    @staticmethod
    @override
    def open_files(settings: NodeSettings, directory: Path, programs: Programs) -> PartFiles:
        return open_node_files(settings, directory, programs)
