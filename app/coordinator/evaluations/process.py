"""Evaluations: jobs labelled `type=evaluation` whose process is `evaluate_model`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from app.coordinator.evaluations import evaluate_model, evaluator
from app.coordinator.evaluations.evaluator.benchmarks import BENCHMARKS
from app.coordinator.jobs.model import JobRecord
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark

#: The script that is an evaluation's process.
SCRIPT: Final = Path(evaluate_model.__file__)
#: The folder that has to be beside it.
EVALUATOR: Final = Path(evaluator.__file__).parent
#: Bytes of an evaluation as it is submitted: it is in memory as long as it waits.
MAX_REQUEST: Final = 256 * 1024

#: The URL of a job's checkpoint, by its id. Raises FailedPrecondition.
FindCheckpoint = Callable[[JobRecord, str], str]


def names_task(benchmark: Benchmark) -> bool:
    """Whether a benchmark's data set is the name of a task of lm-evaluation-harness, and no URL."""
    known = BENCHMARKS.get(benchmark.name)
    return known is not None and known.of_harness and "/" not in benchmark.dataset


def process_config(job: JobRecord, fetch: Callable[[str], str]) -> dict[str, Any]:
    """What `evaluate_model` is told; `fetch` tells where what a URL names can be read."""
    assert job.evaluation is not None
    return {
        "model_path": fetch(job.evaluation.model_uri),
        "benchmarks": [
            {
                "name": benchmark.name,
                "dataset": benchmark.dataset,
                # A task of lm-evaluation-harness by its name brings its own data.
                "local_path": "" if names_task(benchmark) else fetch(benchmark.dataset),
                "num_samples": benchmark.num_samples,
                "parameters": dict(benchmark.parameters),
            }
            for benchmark in job.evaluation.benchmarks
        ],
    }
