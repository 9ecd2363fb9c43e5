"""What becomes of jobs when a node is drained, or when the engine reports other nodes."""

from collections.abc import Sequence

from app.coordinator.cluster.node_specs import NodeReport
from app.coordinator.jobs.model import StopReason
from app.coordinator.jobs.states import RUNNING, Status
from app.coordinator.scheduling.job_changes import queue_job, stop_run
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.transitions import Abandon


def drain_node(table: JobTable, node_id: str, *, force: bool, reason: str) -> None:
    """Place no more jobs on a node; with `force`, stop those that run there."""
    table.set_drain(node_id, reason)
    _leave_node(table, node_id, f"Node {node_id} is being drained. Waiting for another node.")
    if not force:
        return
    because = f" ({reason})" if reason else ""
    for job_id in sorted(table.cluster.nodes[node_id].job_ids):
        job = table.jobs[job_id]
        if job.status in RUNNING and job.stop_reason is StopReason.NONE:
            stop_run(
                table,
                job,
                StopReason.EVICT,
                f"Stopped because node {node_id} was drained by force{because}.",
            )


def take_up_nodes(table: JobTable, reports: Sequence[NodeReport]) -> None:
    """Have the nodes that the engine reports. Jobs that have not begun to run leave those on which
    nothing can start; how the runs of a lost node ended is reported as for any run."""
    table.set_nodes(reports)
    for node in list(table.cluster.nodes.values()):
        if node.problem:
            node_id = node.spec.node_id
            _leave_node(table, node_id, f"Node {node_id} was lost. Waiting for another node.")


def _leave_node(table: JobTable, node_id: str, message: str) -> None:
    for job_id in sorted(table.cluster.nodes[node_id].job_ids):
        job = table.jobs[job_id]
        if job.status in (Status.SCHEDULING, Status.PREPARING):
            table.instruct(Abandon(job_id))
            queue_job(table, job, message)
