"""Scaling of the job with ranks, batch size, pictures to convert and files to read.

    .venv/1.15-intel/bin/python -m benchmarks.growth --output=F
    .venv/1.15-intel/bin/python -m benchmarks.growth --output=F --plot=docs/growth.png

The first command measures all four parts, or one of them with ``--part``.  The second
command draws the measurements in the file.  The part ``ranks`` needs Horovod.
"""

import argparse
import os
import tempfile
from typing import Callable, Dict, List

from alexnet_estimator.console import note
from benchmarks import compare, harness, synthetic
from benchmarks.harness import Engine, Kind
from benchmarks.ranks import make_table
from benchmarks.start import measure_first_step

RANKS = Kind("growth_ranks")
BATCH = Kind("growth_batch")
CONVERT_SECS = Kind("growth_convert", "s", higher_is_better=False)
CONVERT_MEMORY = Kind("growth_convert_memory", "MiB", higher_is_better=False)
SHARDS = Kind("growth_shards", "s", higher_is_better=False)
AXES = {
    RANKS: ("ranks on this machine", "images/s of all ranks"),
    BATCH: ("batch", "images/s"),
    CONVERT_SECS: ("pictures to convert", "seconds"),
    CONVERT_MEMORY: ("pictures to convert", "MiB, largest process"),
    SHARDS: ("files of the training data", "seconds to the first step"),
}
NUM_PICTURES = 1000


def grow_ranks(engine: Engine, options: argparse.Namespace) -> None:
    """Measure the training step of a narrow network (1/4) on 1, 2, 4 and 8 ranks."""
    flags = (
        "--config.data.image_size=127",
        "--config.model.width_multiplier=0.25",
        "--batch_size=16",
        f"--train_steps={options.steps}",
        "--warmup_steps=3",
    )
    with tempfile.TemporaryDirectory() as folder:
        for num_ranks in (1, 2, 4, 8):
            table = make_table(engine, folder, num_ranks)
            values = [harness.measure_step(engine, *flags, f"--rank_table={table}")]
            write(options, RANKS, num_ranks, values)


def grow_batch(engine: Engine, options: argparse.Namespace) -> None:
    """Measure the training step of the whole network on 127 px with growing batches."""
    for batch_size in (16, 32, 64, 128, 256):
        flags = (
            "--config.data.image_size=127",
            f"--batch_size={batch_size}",
            # Every batch size is measured on about the same number of images.
            f"--train_steps={max(4, options.steps * 64 // batch_size)}",
            "--warmup_steps=2",
        )
        write(options, BATCH, batch_size, [harness.measure_step(engine, *flags)])


def grow_conversion(engine: Engine, options: argparse.Namespace) -> None:
    """Measure time and memory of converting synthetic pictures."""
    for num_pictures in options.pictures:
        with tempfile.TemporaryDirectory() as folder:
            pictures = synthetic.make_pictures(os.path.join(folder, "in"), num_pictures)
            words = synthetic.convert_command(pictures, os.path.join(folder, "out"))
            words += ["--config.convert.images_per_shard=512"]
            words += ["--config.convert.num_workers=2"]
            command = [engine.python, "-m", "alexnet_estimator", *words]
            secs, peak_mib = harness.measure_process(command)
        write(options, CONVERT_SECS, num_pictures, [secs])
        write(options, CONVERT_MEMORY, num_pictures, [peak_mib])


def grow_shards(engine: Engine, options: argparse.Namespace) -> None:
    """Measure the start of training on the same pictures in 1 to 800 files."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = synthetic.make_pictures(os.path.join(folder, "in"), NUM_PICTURES)
        for images_per_shard in (800, 80, 8, 1):
            output = os.path.join(folder, str(images_per_shard))
            words = synthetic.convert_command(pictures, output)
            size = f"--config.convert.images_per_shard={images_per_shard}"
            harness.run_job(engine, *words, size)
            values = [measure_first_step(engine, output) for _ in range(options.rounds)]
            write(options, SHARDS, NUM_PICTURES * 4 // 5 // images_per_shard, values)


def write(
    options: argparse.Namespace, kind: Kind, number: int, values: List[float]
) -> None:
    """Append a point of a curve."""
    note(f"{kind.benchmark} {number}: {min(values):.4g}")
    harness.append(options.output, kind, str(number), values)


def plot(path: str, image: str) -> None:
    """Draw the curves of a file of measurements."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = compare.read(path)
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6))
    for axis, (kind, (x_label, y_label)) in zip(axes.flat, AXES.items()):
        numbers, values = zip(
            *sorted(
                (int(case), record["value"])
                for (benchmark, case), record in records.items()
                if benchmark == kind.benchmark
            )
        )
        axis.plot(numbers, values, marker="o")
        axis.set_xscale("log")
        axis.set_xticks(numbers)
        axis.set_xticklabels([f"{number:,}" for number in numbers])
        axis.minorticks_off()
        axis.set_ylim(0, max(values) * 1.1)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(AXES) :]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(image, dpi=80)


PARTS: Dict[str, Callable[[Engine, argparse.Namespace], None]] = {
    "ranks": grow_ranks,
    "batch": grow_batch,
    "convert": grow_conversion,
    "shards": grow_shards,
}


def main() -> None:
    """Run the benchmark, or draw its measurements."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), help="part to measure")
    parser.add_argument("--steps", type=int, default=10, help="steps of a batch of 64")
    parser.add_argument(
        "--pictures",
        type=int,
        nargs="+",
        default=(1000, 3000, 10000),
        help="numbers of pictures to convert; 100000 take minutes",
    )
    parser.add_argument("--plot", metavar="PNG", help="draw --output, do not measure")
    options = parser.parse_args()
    if options.plot:
        plot(options.output, options.plot)
        return
    for engine in harness.engines_of(options):
        for name in [options.part] if options.part else PARTS:
            PARTS[name](engine, options)


if __name__ == "__main__":
    main()
