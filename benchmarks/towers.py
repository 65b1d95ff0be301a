"""Training step of two-tower AlexNet on synthetic images of 227 px: ours and a peer's.

    python -m benchmarks.towers --output=F --engine=1.15 --engine=1.15-intel

The peer is the plain graph of ``plain_alexnet.py``.  Both are measured on each engine.
"""

import functools
from typing import Dict, Sequence

from benchmarks import harness
from benchmarks.harness import Measure

KIND = harness.Kind("two_tower_step")


def measure_plain(command: Sequence[str]) -> float:
    """Return the images/s of the plain graph."""
    return float(harness.run(command))


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__)
    harness.add_step_flags(parser, steps=4)
    options = parser.parse_args()
    flags = harness.step_flags(options)
    cases: Dict[str, Measure] = {}
    versions = {}
    for engine in harness.engines_of(options):
        plain, ours = f"plain {engine.name}", f"ours {engine.name}"
        cases[plain] = functools.partial(
            measure_plain, harness.plain_command(engine, options)
        )
        cases[ours] = functools.partial(harness.measure_step, engine, *flags)
        versions[plain] = versions[ours] = harness.versions_of(engine)
    harness.run_and_append(options, KIND, cases, versions)


if __name__ == "__main__":
    main()
