"""The evaluator's process: runs the benchmarks and writes `results.json`.

Reads `SCAIMIND_JOB_CONFIG` (`model_path`, `base_paths` of what it is an adapter on, the nearest
first, and `benchmarks`) and writes into `SCAIMIND_OUTPUT_DIR`. What a model's directory must hold,
and what the benchmarks do, is in docs/evaluations.md.

The model's own code runs in another process, which answers questions and
nothing else. It and all that it started have ended before the results are
written: whatever it does, this process alone says what the scores are, and
exits with status 0 only when they are written.
"""

# ruff: noqa: T201  # what a process prints is its log
import ctypes
import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from .benchmarks import BENCHMARKS, BadData
from .bounds import in_words
from .model_process import ModelProcess, NoAnswer, end_descendants

RESULTS = "results.json"
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def evaluate(model: ModelProcess, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The result of one benchmark; `error_message` says why there are no scores."""
    began = time.monotonic()
    scores: dict[str, float] = {}
    samples, problem = 0, ""
    benchmark = BENCHMARKS[asked["name"]]
    try:
        scores, samples = benchmark.run(
            model,
            Path(asked["local_path"]) if asked["local_path"] else asked["dataset"],
            asked["num_samples"],
            **benchmark.read(asked["parameters"]),
        )
    except (BadData, NoAnswer) as error:
        problem = str(error)
    except Exception as error:  # one benchmark that breaks off does not end the others
        traceback.print_exception(error)
        problem = f"it failed with {type(error).__name__}: {error}"
    if problem:
        problem = in_words(f"{asked['dataset']}: {problem}")
    return {
        "scores": scores,
        "num_samples": samples,
        "error_message": problem,
        "duration_seconds": time.monotonic() - began,
    }


def write_results(output: int, results: list[dict[str, Any]]) -> None:
    """Write the results into the directory `output`, as a whole or not at all. Raises OSError."""
    fresh = f".{secrets.token_hex(16)}.partial"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(fresh, flags, 0o644, dir_fd=output), "wb") as file:
        file.write(json.dumps(results, ensure_ascii=False).encode(errors="backslashreplace"))
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, RESULTS, src_dir_fd=output, dst_dir_fd=output)


def run_benchmarks(
    model: ModelProcess, benchmarks: list[dict[str, Any]], metrics: IO[bytes]
) -> list[dict[str, Any]]:
    """The results of all benchmarks, in their order."""
    results = []
    for number, asked in enumerate(benchmarks, 1):
        result = evaluate(model, asked)
        results.append(result)
        if problem := result["error_message"]:
            print(f"{asked['name']}: {problem}", file=sys.stderr)
        else:
            print(f"{asked['name']} on {asked['dataset']}: {result['scores']}")
        numbers = {f"eval_{name}": score for name, score in result["scores"].items()}
        snapshot = {"step": number, "total_steps": len(benchmarks), **numbers}
        metrics.write(json.dumps(snapshot).encode() + b"\n")
        metrics.flush()
    return results


def main() -> int:
    """Run the benchmarks; status 1 if not one of them gave scores."""
    libc = ctypes.CDLL(None)
    # The model's processes have the same user: they must not look into this one, or change it.
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    config = json.loads(Path(os.environ["SCAIMIND_JOB_CONFIG"]).read_text(encoding="utf-8"))
    benchmarks = config["benchmarks"]
    # Opened before any code of the model runs, which could put something else in their place.
    output = os.open(os.environ["SCAIMIND_OUTPUT_DIR"], os.O_RDONLY | os.O_DIRECTORY)
    with open(os.environ["SCAIMIND_METRICS_FILE"], "ab") as metrics:
        bases = [Path(base) for base in config.get("base_paths", ())]
        model = ModelProcess(Path(config["model_path"]), bases)
        try:
            model.load()
        except NoAnswer as error:
            model.close()
            print(f"The model cannot be loaded: {error}", file=sys.stderr)
            return 1
        results = run_benchmarks(model, benchmarks, metrics)
    model.close()
    # None is left that could write what this process writes now.
    end_descendants()
    if not any(result["scores"] for result in results):
        problem = f"{benchmarks[0]['name']}: {results[0]['error_message']}"
        print(f"No benchmark returned scores. {problem}", file=sys.stderr)
        return 1
    try:
        write_results(output, results)
    except OSError as error:
        print(f"The results cannot be written: {error.strerror}.", file=sys.stderr)
        return 1
    return 0
