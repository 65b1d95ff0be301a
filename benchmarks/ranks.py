"""Training step of 2 ranks with 1 thread each, and of 1 rank with 2 threads.

    python -m benchmarks.ranks --output=F

The network has two towers, the images are synthetic, and the batch size per rank is the
same, so that a step of two ranks takes twice as many images.  Each rank sends all
gradients and updates all weights.  With smaller images and batches (``--image_size``,
``--batch_size``), this part of a step is larger.  The two ranks are measured twice, the
second time with gradients that are sent as float16.  Horovod is required.
"""

import functools
import os
import tempfile

from benchmarks import harness

KIND = harness.Kind("ranks")


def make_table(engine: harness.Engine, folder: str, num_ranks: int) -> str:
    """Write a rank table of this machine and return its path."""
    path = os.path.join(folder, f"{num_ranks}p.json")
    flags = ("--servers=127.0.0.1", f"--devices={num_ranks}", f"--output={path}")
    harness.run_job(engine, "rank_table", "make", *flags)
    return path


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__)
    harness.add_step_flags(parser, steps=4)
    parser.add_argument("--image_size", type=int, default=227, help="pixels")
    options = parser.parse_args()
    flags = harness.step_flags(options, num_warmup=3)
    flags.append(f"--config.data.image_size={options.image_size}")
    with tempfile.TemporaryDirectory() as folder:
        for engine in harness.engines_of(options):
            table = make_table(engine, folder, 2)
            step = functools.partial(harness.measure_step, engine, *flags)
            ranks = functools.partial(step, f"--rank_table={table}")
            half = "--config.precision.gradient_compression=fp16"
            cases = {
                f"1x2 {engine.name}": functools.partial(
                    step, "--config.runtime.num_threads=2"
                ),
                f"2x1 {engine.name}": ranks,
                f"2x1 fp16 {engine.name}": functools.partial(ranks, half),
            }
            versions = dict.fromkeys(cases, harness.versions_of(engine))
            harness.run_and_append(options, KIND, cases, versions)


if __name__ == "__main__":
    main()
