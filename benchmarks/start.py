"""Seconds from the start of a process to its first step, and from its last evaluation.

    python -m benchmarks.start --output=F

``train`` is measured with configs/tiny.py on converted synthetic pictures, until the
second step is in ``metrics.jsonl``.  This is some milliseconds after the first step,
which is not logged.  ``--help`` and ``rank_table check`` are measured to their end.
``end`` is the time that a run of configs/quickstart.py with 320 pictures for validation
takes from the end of its last evaluation to its exit: it draws samples, mistakes and
kernels for TensorBoard, and writes the report.
"""

import functools
import json
import os
import tempfile
import time
from typing import Dict

from benchmarks import harness, synthetic
from benchmarks.harness import Engine

KIND = harness.Kind("start", "s", higher_is_better=False)


def train(engine: Engine, config: str, data_path: str) -> Dict[str, float]:
    """Train two steps; return when each kind of event came first, and the exit."""
    with tempfile.TemporaryDirectory() as model_dir:
        harness.run_job(
            engine,
            "train",
            f"--config=configs/{config}.py",
            f"--data_path={data_path}",
            f"--model_dir={model_dir}",
            "--train_steps=2",
            "--config.train.log_every_steps=1",
        )
        end = time.time()
        with open(os.path.join(model_dir, "metrics.jsonl"), encoding="utf-8") as file:
            events = [json.loads(line) for line in file]
    times = {event["event"]: event["time_secs"] for event in reversed(events)}
    return {**times, "exit": end}


def measure_first_step(engine: Engine, data_path: str) -> float:
    """Return the seconds from the start of a new run to its first logged step."""
    start = time.time()
    return train(engine, "tiny", data_path)["train"] - start


def measure_end(engine: Engine, data_path: str) -> float:
    """Return the seconds from the only evaluation of a run to its exit."""
    times = train(engine, "quickstart", data_path)
    return times["exit"] - times["evaluation"]


def measure_command(engine: Engine, *words: str) -> float:
    """Return the seconds that a whole command takes."""
    start = time.perf_counter()
    harness.run_job(engine, *words)
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__, rounds=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for engine in harness.engines_of(options):
            data = synthetic.convert(engine, os.path.join(folder, engine.name), 64)
            more = synthetic.convert(
                engine, os.path.join(folder, engine.name, "more"), 1600
            )
            check = ("rank_table", "check", "rank_tables/8p.json")
            cases = {
                f"train {engine.name}": functools.partial(
                    measure_first_step, engine, data
                ),
                f"end {engine.name}": functools.partial(measure_end, engine, more),
                f"--help {engine.name}": functools.partial(
                    measure_command, engine, "--help"
                ),
                f"rank_table check {engine.name}": functools.partial(
                    measure_command, engine, *check
                ),
            }
            versions = dict.fromkeys(cases, harness.versions_of(engine))
            harness.run_and_append(options, KIND, cases, versions)


if __name__ == "__main__":
    main()
