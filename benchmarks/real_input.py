"""Training on TFRecords of real photos, and the same step on synthetic images.

    python -m benchmarks.real_input --output=F --data_path=FOLDER_OF_CONVERT
"""

from typing import Dict, List

from benchmarks import harness

KIND = harness.Kind("real_input")


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--data_path", required=True, help="output of convert")
    harness.add_step_flags(parser, steps=6)
    options = parser.parse_args()
    flags = harness.step_flags(options, num_warmup=3)
    flags.append(f"--data_path={options.data_path}")
    for engine in harness.engines_of(options):
        values: Dict[str, List[float]] = {"synthetic": [], "real": []}
        for _ in range(options.rounds):
            # One command measures both, one after the other.
            for record in harness.measure_job(engine, "train", *flags):
                values[record["input"]].append(record["images_per_sec"])
        versions = harness.versions_of(engine)
        for source, numbers in values.items():
            case = f"{source} {engine.name}"
            harness.append(options.output, KIND, case, numbers, versions=versions)


if __name__ == "__main__":
    main()
