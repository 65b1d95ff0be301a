"""The input pipeline with the paper's augmentation, and with everything switched on.

    python -m benchmarks.augmentation --output=F --data_path=FOLDER_OF_CONVERT

The figures are images per CPU second.  The images have 127 pixels, so that both sides
resize every crop of the pictures (256 pixels).  With ``--image_size=227``, the paper's
crops have the right size already, which only crops of one size have.
"""

import functools
from typing import Dict

from benchmarks import harness
from benchmarks.harness import Engine, Measure
from benchmarks.input_pipeline import measure_ours

KIND = harness.Kind("input_augmented", "images/CPU s")
EVERYTHING = (
    "--config.data.crop_fractions=(0.5,1.0)",
    "--config.data.crop_aspects=(0.75,1.33)",
    "--config.data.use_quarter_turns=True",
    "--config.data.colour_noise_std=0.1",
    "--config.data.brightness=0.2",
    "--config.data.contrast=0.2",
    "--config.data.saturation=0.2",
    "--config.data.erasing_probability=0.25",
    "--config.data.mixup_alpha=0.2",
    "--config.data.cutmix_alpha=1.0",
)


def measure(engine: Engine, data_path: str, num_batches: int, *flags: str) -> float:
    """Return the images of the pipeline per CPU second."""
    return measure_ours(engine, data_path, num_batches, *flags)[1]


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__, rounds=3)
    parser.add_argument("--data_path", required=True, help="output of convert")
    parser.add_argument("--batches", type=int, default=40, help="batches of 100 images")
    parser.add_argument("--image_size", type=int, default=127, help="pixels")
    options = parser.parse_args()
    size = f"--config.data.image_size={options.image_size}"
    for engine in harness.engines_of(options):
        paper = functools.partial(
            measure, engine, options.data_path, options.batches, size
        )
        cases: Dict[str, Measure] = {
            f"paper {engine.name}": paper,
            f"everything {engine.name}": functools.partial(paper, *EVERYTHING),
        }
        versions = dict.fromkeys(cases, harness.versions_of(engine))
        harness.run_and_append(options, KIND, cases, versions)


if __name__ == "__main__":
    main()
