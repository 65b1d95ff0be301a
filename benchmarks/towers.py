"""Training step of two-tower AlexNet, 227 px, made-up pictures: ours and a plain graph.

    python -m benchmarks.towers --output=F --engine=1.15 --engine=1.15-intel

Both on every engine; the plain graph is ``plain_alexnet.py``.
"""

import functools
from typing import Dict

from benchmarks import harness
from benchmarks.harness import Engine, Measure

KIND = harness.Kind("two_tower_step")


def measure_plain(engine: Engine, steps: int, batch_size: int) -> float:
    """Return the plain graph's images/s."""
    command = [engine.python, "benchmarks/plain_alexnet.py"]
    flags = [f"--steps={steps}", f"--batch_size={batch_size}"]
    return float(harness.run(command + flags))


def main() -> None:
    """Measure as the flags say."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=4, help="measured in each run")
    parser.add_argument("--batch_size", type=int, default=100)
    options = parser.parse_args()
    flags = [
        f"--train_steps={options.steps}",
        "--warmup_steps=2",
        f"--batch_size={options.batch_size}",
    ]
    cases: Dict[str, Measure] = {}
    versions = {}
    for engine in harness.engines_of(options):
        plain, ours = f"plain {engine.name}", f"ours {engine.name}"
        cases[plain] = functools.partial(
            measure_plain, engine, options.steps, options.batch_size
        )
        cases[ours] = functools.partial(harness.measure_step, engine, *flags)
        versions[plain] = versions[ours] = harness.versions_of(engine)
    harness.run_and_append(options, KIND, cases, versions)


if __name__ == "__main__":
    main()
