"""The input pipeline alone: ours, a naive tf.data pipeline, and libjpeg-turbo.

    .venv/1.15-intel/bin/python -m pip install simplejpeg
    python -m benchmarks.input_pipeline --output=F --data_path=FOLDER_OF_CONVERT

The figures are images per CPU second, which is the rate of one core whatever else the
machine does, and images per second of wall time on all cores (of libjpeg-turbo, on
one).  ``decoders.py`` implements the peers; libjpeg-turbo uses the first engine.
"""

from typing import Dict, List, Tuple

from alexnet_estimator.console import note
from benchmarks import harness
from benchmarks.harness import Engine

PER_CORE = harness.Kind("input_per_core", "images/CPU s")
WALL = harness.Kind("input_wall")
Speed = Tuple[float, float]


def measure_ours(
    engine: Engine, data_path: str, num_batches: int, *flags: str
) -> Speed:
    """Return our images per second of wall time, and per CPU second."""
    records = harness.measure_job(
        engine,
        "input",
        f"--data_path={data_path}",
        f"--train_steps={num_batches}",
        "--warmup_steps=10",
        "--batch_size=100",
        *flags,
    )
    (real,) = [record for record in records if record["input"] == "real"]
    return real["images_per_sec"], real["images_per_cpu_sec"]


def measure_other(engine: Engine, way: str, data_path: str, num_batches: int) -> Speed:
    """Return the same figures for a way of ``decoders.py``."""
    words = ["-m", "benchmarks.decoders", way, data_path, f"--batches={num_batches}"]
    wall, per_cpu_sec = harness.run([engine.python, *words]).split()
    return float(wall), float(per_cpu_sec)


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--data_path", required=True, help="output of convert")
    parser.add_argument("--batches", type=int, default=60, help="batches of 100 images")
    parser.add_argument(
        "--without_libjpeg_turbo", action="store_true", help="do not use simplejpeg"
    )
    options = parser.parse_args()
    engines = harness.engines_of(options)
    ways = [(way, engine) for engine in engines for way in ("ours", "naive")]
    if not options.without_libjpeg_turbo:
        ways.append(("libjpeg-turbo", engines[0]))
    data = (options.data_path, options.batches)
    speeds: Dict[Tuple[str, Engine], List[Speed]] = {key: [] for key in ways}
    for _ in range(options.rounds):
        for way, engine in ways:
            if way == "ours":
                speed = measure_ours(engine, *data)
            else:
                speed = measure_other(engine, way, *data)
            speeds[way, engine].append(speed)
            note(f"{way} {engine.name}: {speed[1]:.0f} images/CPU s")
    for (way, engine), found in speeds.items():
        case = way if way == "libjpeg-turbo" else f"{way} {engine.name}"
        versions = harness.versions_of(engine)
        wall = [speed[0] for speed in found]
        per_core = [speed[1] for speed in found]
        harness.append(options.output, WALL, case, wall, versions=versions)
        harness.append(options.output, PER_CORE, case, per_core, versions=versions)


if __name__ == "__main__":
    main()
