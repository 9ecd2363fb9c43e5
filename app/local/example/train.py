"""Train a small character model with NumPy, as a job of ScaiMind.

The model reads the last `context` characters and predicts the next one: an
embedding, one hidden layer and a softmax (Bengio et al., "A Neural
Probabilistic Language Model", 2003), trained with Adam. It is small enough to
learn the look of English prose in half a minute on a laptop.

What a job gives its process, and what is done with it here:

    SCAIMIND_JOB_CONFIG      the job's configs as JSON: data, hyperparameters
    SCAIMIND_RESUME_FROM     a checkpoint to go on from, or empty
    SCAIMIND_CHECKPOINT_DIR  gets a directory for each checkpoint, a model.npz in it
    SCAIMIND_METRICS_FILE    gets one JSON object a line
    SCAIMIND_OUTPUT_DIR      gets model.npz and report.json
    SIGTERM                  saves a checkpoint and leaves with status 0

Hyperparameters (strings, in training_config.hyperparameters): steps, context,
embedding, hidden, learning_rate, log_interval, eval_interval, steps_per_second
(which holds it back, so that there is time to watch; not set, it does not wait).
"""

# ruff: noqa: T201  # what a training process prints is its log
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

# One thread: the matrices are so small that more threads wait for each other
# most of the time, and for very long on a machine that has other work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # it reads the variables when it is imported
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Array = NDArray[np.float32]
Weights = dict[str, Array]


@dataclass(frozen=True)
class Plan:
    """What the job asks for."""

    sources: tuple[Path, ...]
    validation_split: float
    seed: int
    batch_size: int
    steps: int
    context: int
    embedding: int
    hidden: int
    learning_rate: float
    log_interval: int
    eval_interval: int
    checkpoint_interval: int
    #: Steps of a run in a second, at most; 0 is as many as there can be.
    steps_per_second: float

    @classmethod
    def of_job(cls, config: dict[str, Any]) -> "Plan":
        """Read the submitted configs; what they leave out gets a default."""
        data = config["data_config"]
        output = config.get("output_config", {})
        hyper = config["training_config"].get("hyperparameters", {})
        return cls(
            sources=tuple(Path(source["local_path"]) for source in data["sources"]),
            validation_split=data.get("validation_split") or 0.05,
            seed=int(data.get("seed", 0)),
            batch_size=data.get("batch_size") or 256,
            steps=int(hyper.get("steps", 5000)),
            context=int(hyper.get("context", 12)),
            embedding=int(hyper.get("embedding", 16)),
            hidden=int(hyper.get("hidden", 192)),
            learning_rate=float(hyper.get("learning_rate", 0.004)),
            log_interval=int(hyper.get("log_interval", 50)),
            eval_interval=int(hyper.get("eval_interval", 1000)),
            checkpoint_interval=output.get("checkpoint_interval_steps") or 1000,
            steps_per_second=float(hyper.get("steps_per_second", 0)),
        )


class Corpus:
    """The text as numbers, one per character, cut into a part to learn from and one to check."""

    def __init__(self, sources: tuple[Path, ...], validation_split: float) -> None:
        records = [record for source in sources for record in _records(source)]
        self.alphabet = sorted(set("\n".join(records)) | {"\n"})
        every = max(2, round(1 / validation_split))
        held_back = set(range(every - 1, len(records), every))
        self.training = self._tokens(r for i, r in enumerate(records) if i not in held_back)
        self.validation = self._tokens(r for i, r in enumerate(records) if i in held_back)

    def _tokens(self, records: Iterable[str]) -> Tokens:
        number = {character: index for index, character in enumerate(self.alphabet)}
        return np.array([number[c] for c in "\n\n".join(records)], dtype=np.int32)


def _records(source: Path) -> Iterator[str]:
    with source.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def batch(
    tokens: Tokens, size: int, context: int, rng: np.random.Generator
) -> tuple[Tokens, Tokens]:
    """Draw `size` windows: what was read (size, context), and what came next (size,)."""
    start = rng.integers(0, len(tokens) - context, size)
    return tokens[start[:, None] + np.arange(context)], tokens[start + context]


def new_weights(plan: Plan, symbols: int, rng: np.random.Generator) -> Weights:
    """Weights before the first step."""

    def normal(*shape: int, scale: float) -> Array:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    width = plan.context * plan.embedding
    return {
        "embedding": normal(symbols, plan.embedding, scale=0.5),
        "hidden": normal(width, plan.hidden, scale=width**-0.5),
        "hidden_bias": np.zeros(plan.hidden, np.float32),
        "output": normal(plan.hidden, symbols, scale=0.1 * plan.hidden**-0.5),
        "output_bias": np.zeros(symbols, np.float32),
    }


def forward(weights: Weights, read: Tokens) -> tuple[Array, Array, Array]:
    """Compute what the layers hold: inputs, hidden, and log-probabilities of what comes next."""
    inputs = weights["embedding"][read].reshape(len(read), -1)
    hidden = np.tanh(inputs @ weights["hidden"] + weights["hidden_bias"])
    logits = hidden @ weights["output"] + weights["output_bias"]
    logits -= logits.max(axis=1, keepdims=True)
    return inputs, hidden, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def loss_and_gradients(weights: Weights, read: Tokens, came: Tokens) -> tuple[float, Weights]:
    """Mean cross-entropy in nats per character, and its gradient by every weight."""
    inputs, hidden, log_odds = forward(weights, read)
    rows = np.arange(len(read))
    loss = -float(log_odds[rows, came].mean())

    by_logits = np.exp(log_odds)
    by_logits[rows, came] -= 1
    by_logits /= len(read)
    by_hidden = (by_logits @ weights["output"].T) * (1 - hidden**2)
    by_inputs = (by_hidden @ weights["hidden"].T).reshape(*read.shape, -1)
    by_embedding = np.zeros_like(weights["embedding"])
    np.add.at(by_embedding, read, by_inputs)
    return loss, {
        "embedding": by_embedding,
        "hidden": inputs.T @ by_hidden,
        "hidden_bias": by_hidden.sum(axis=0),
        "output": hidden.T @ by_logits,
        "output_bias": by_logits.sum(axis=0),
    }


class Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015."""

    def __init__(self, weights: Weights) -> None:
        self.mean = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self.square = {name: np.zeros_like(weight) for name, weight in weights.items()}

    def update(self, weights: Weights, gradients: Weights, step: int, rate: float) -> None:
        """Move the weights; `step` counts from 1."""
        correction = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for name, gradient in gradients.items():
            mean, square = self.mean[name], self.square[name]
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            weights[name] -= np.float32(correction) * mean / (np.sqrt(square) + np.float32(1e-8))


def save_model(path: Path, weights: Weights, alphabet: list[str]) -> None:
    """Write the model as evaluations read it."""
    np.savez(path, alphabet=np.array(alphabet), **weights)  # type: ignore[arg-type]  # savez's allow_pickle


class Checkpoints:
    """One directory per checkpoint, complete as soon as it has its name."""

    def __init__(self, root: Path, alphabet: list[str]) -> None:
        self.root = root
        self.alphabet = alphabet

    def save(self, step: int, weights: Weights, adam: Adam) -> None:
        """Write the model, and what else going on from here needs."""
        final = self.root / f"step-{step:06d}"
        if final.exists():
            return
        beside = self.root / f".step-{step:06d}.{os.getpid()}"
        beside.mkdir(parents=True, exist_ok=True)
        save_model(beside / "model.npz", weights, self.alphabet)
        averages = {
            f"{kind}.{name}": array
            for kind, named in (("mean", adam.mean), ("square", adam.square))
            for name, array in named.items()
        }
        np.savez(beside / "adam.npz", step=np.int64(step), **averages)  # type: ignore[arg-type]  # as above
        beside.rename(final)
        print(f"Saved checkpoint {final.name}")

    @staticmethod
    def load(checkpoint: Path, weights: Weights, adam: Adam) -> int:
        """Put a checkpoint's numbers in place and tell its step."""
        with np.load(checkpoint / "model.npz") as model, np.load(checkpoint / "adam.npz") as state:
            for name in weights:
                weights[name] = model[name]
                adam.mean[name] = state[f"mean.{name}"]
                adam.square[name] = state[f"square.{name}"]
            return int(state["step"])


def evaluate(weights: Weights, tokens: Tokens, plan: Plan) -> float:
    """Loss on text that is not learned from; the same windows each time."""
    rng = np.random.default_rng(plan.seed)
    read, came = batch(tokens, 4096, plan.context, rng)
    return -float(forward(weights, read)[2][np.arange(len(came)), came].mean())


def sample(weights: Weights, corpus: Corpus, plan: Plan, length: int = 160) -> str:
    """Text that the model makes up, as one line."""
    rng = np.random.default_rng(plan.seed)
    tokens = list(corpus.validation[: plan.context])
    for _ in range(length):
        log_odds = forward(weights, np.array([tokens[-plan.context :]]))[2][0]
        odds = np.exp(log_odds / 0.7)
        tokens.append(rng.choice(len(odds), p=odds / odds.sum()))
    return " ".join("".join(corpus.alphabet[token] for token in tokens[plan.context :]).split())


class Trainer:
    """One run of the job."""

    def __init__(self, plan: Plan, corpus: Corpus, checkpoints: Checkpoints, metrics: Path) -> None:
        self.plan = plan
        self.corpus = corpus
        self.checkpoints = checkpoints
        self.metrics = metrics
        rng = np.random.default_rng(plan.seed)
        self.weights = new_weights(plan, len(corpus.alphabet), rng)
        self.adam = Adam(self.weights)
        self.step = 0
        self.asked_to_leave = False

    def leave(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: the step at hand is finished first."""
        self.asked_to_leave = True

    def run(self) -> bool:
        """Train up to the last step; False if asked to leave before."""
        plan = self.plan
        began, since = time.perf_counter(), self.step
        losses: list[float] = []
        while self.step < plan.steps:
            if self.asked_to_leave:
                self.checkpoints.save(self.step, self.weights, self.adam)
                return False
            self.step += 1
            # A generator of its own for each step: a resumed run draws the
            # windows that the interrupted one would have drawn.
            rng = np.random.default_rng((plan.seed, self.step))
            read, came = batch(self.corpus.training, plan.batch_size, plan.context, rng)
            loss, gradients = loss_and_gradients(self.weights, read, came)
            rate = plan.learning_rate * (
                0.05 + 0.95 * math.cos(math.pi / 2 * self.step / plan.steps)
            )
            self.adam.update(self.weights, gradients, self.step, rate)
            losses.append(loss)

            if self.step % plan.eval_interval == 0 or self.step == plan.steps:
                validation = evaluate(self.weights, self.corpus.validation, plan)
                print(f"Step {self.step}: validation loss {validation:.3f}")
                print(f"It writes: {sample(self.weights, self.corpus, plan)}")
            if self.step % plan.log_interval == 0 or self.step in (1, plan.steps):
                speed = (self.step - since) * plan.batch_size / (time.perf_counter() - began)
                norm = sum(float((g * g).sum()) for g in gradients.values()) ** 0.5
                self.report(
                    loss=sum(losses) / len(losses),
                    learning_rate=rate,
                    grad_norm=norm,
                    tokens_per_second=speed,
                )
                losses.clear()
            if self.step % plan.checkpoint_interval == 0:
                self.checkpoints.save(self.step, self.weights, self.adam)
            if plan.steps_per_second:
                due = began + (self.step - since) / plan.steps_per_second
                time.sleep(max(0.0, due - time.perf_counter()))
        return True

    def report(self, **numbers: float) -> None:
        """Append a snapshot to the metrics, and a line to the log.

        `loss` is the mean since the last report.
        """
        seen = self.step * self.plan.batch_size / len(self.corpus.training)
        snapshot = {"step": self.step, "total_steps": self.plan.steps, "epoch": seen, **numbers}
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(snapshot) + "\n")
        print(
            f"Step {self.step} of {self.plan.steps}: loss {numbers['loss']:.3f}, "
            f"{numbers['tokens_per_second']:,.0f} characters a second"
        )


def main() -> int:
    """Run the job that the environment describes."""
    # Through a pipe Python would hold lines back until there are some kilobytes.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a TextIOWrapper
    environ = os.environ
    plan = Plan.of_job(json.loads(Path(environ["SCAIMIND_JOB_CONFIG"]).read_text(encoding="utf-8")))
    corpus = Corpus(plan.sources, plan.validation_split)
    print(
        f"Read {len(corpus.training) + len(corpus.validation):,} characters, "
        f"{len(corpus.alphabet)} different ones"
    )
    trainer = Trainer(
        plan,
        corpus,
        Checkpoints(Path(environ["SCAIMIND_CHECKPOINT_DIR"]), corpus.alphabet),
        Path(environ["SCAIMIND_METRICS_FILE"]),
    )
    signal.signal(signal.SIGTERM, trainer.leave)
    if checkpoint := environ.get("SCAIMIND_RESUME_FROM"):
        trainer.step = Checkpoints.load(Path(checkpoint), trainer.weights, trainer.adam)
        print(f"Going on from {Path(checkpoint).name}")

    if not trainer.run():
        print("Asked to leave: saved, and gone")
        return 0

    output = Path(environ["SCAIMIND_OUTPUT_DIR"])
    output.mkdir(parents=True, exist_ok=True)
    save_model(output / "model.npz", trainer.weights, corpus.alphabet)
    report = {
        "steps": plan.steps,
        "untrained_loss": float(np.log(len(corpus.alphabet))),
        "validation_loss": evaluate(trainer.weights, corpus.validation, plan),
        "sample": sample(trainer.weights, corpus, plan),
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Wrote model.npz and report.json; validation loss {report['validation_loss']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
