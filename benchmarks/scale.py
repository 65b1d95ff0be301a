"""A data set with as many records as ImageNet: start, evaluation and verification.

    python -m benchmarks.scale --output=F

There are 1.28 million JPEGs of 1,000 classes in 1,024 files for training, and 51,200
in 128 files for validation, 2.2 GB in all.  The JPEGs of a class are equal.  The cases
are the seconds to the first step of ``train``, the peak memory of ``evaluate`` over all
images and over a tenth of them, and the MB/s of ``verify`` and of a process that only
reads the files and computes their SHA-256.
"""

import argparse
import dataclasses
import functools
import hashlib
import os
import sys
import tempfile
from typing import Dict, List, Sequence, Tuple

import numpy as np

from alexnet_estimator.records import dataset, examples, manifest, pictures, tfrecord
from alexnet_estimator.records.dataset import Dataset, Shard, Split
from benchmarks import harness, start, synthetic
from benchmarks.harness import Engine

START = harness.Kind("scale_start", "s", higher_is_better=False)
MEMORY = harness.Kind("scale_memory", "MiB", higher_is_better=False)
VERIFY = harness.Kind("scale_verify", "MB/s")
SHORT_SIDE = 71  # As configs/tiny.py converts.
READ_ONCE = """
import sys
from alexnet_estimator.files import sha256_of
for path in sys.argv[1:]:
    sha256_of(path)
"""


def write(folder: str, options: argparse.Namespace) -> Dataset:
    """Write the files and ``dataset.json`` into the folder."""
    frames = [_frame(label) for label in range(options.num_classes)]
    num_images = {
        dataset.TRAIN: options.num_images,
        dataset.VALIDATION: options.num_images // 25,
    }
    num_shards = {
        dataset.TRAIN: options.num_shards,
        dataset.VALIDATION: max(1, options.num_shards // 8),
    }
    splits = {
        name: _write_split(folder, name, frames, num_images[name], num_shards[name])
        for name in dataset.SPLITS
    }
    rgb = (128.0, 128.0, 128.0)
    data = Dataset(
        folder,
        tuple(f"class {label}" for label in range(options.num_classes)),
        splits,
        rgb,
        ((900.0, 0.0, 0.0), (0.0, 900.0, 0.0), (0.0, 0.0, 900.0)),
        digest="",
        conversion={"short_side": SHORT_SIDE},
    )
    manifest.write(dataset.with_digest(data))
    return data


def _frame(label: int) -> bytes:
    """Return the framed record of the only picture of a class."""
    jpeg = pictures.transcode(synthetic.draw(label), SHORT_SIDE, 90)
    record = examples.build(jpeg, label, f"class {label}", f"{label}.jpg")
    return tfrecord.frame(record)


def _write_split(
    folder: str, name: str, frames: List[bytes], num_images: int, num_shards: int
) -> Split:
    shards, counts = [], np.zeros(len(frames), int)
    for number, labels in enumerate(np.array_split(np.arange(num_images), num_shards)):
        labels = labels % len(frames)
        counts += np.bincount(labels, minlength=len(frames))
        content = b"".join(frames[label] for label in labels)
        file = f"{name}-{number:05d}-of-{num_shards:05d}"
        with open(os.path.join(folder, file), "wb") as output:
            output.write(content)
        digest = hashlib.sha256(content).hexdigest()
        shards.append(Shard(file, len(labels), len(content), digest))
    return Split(tuple(shards), tuple(counts.tolist()))


def link_tenth(data: Dataset, folder: str) -> str:
    """Link a tenth of the files, write their manifest; return the folder."""
    os.mkdir(folder)
    splits = {}
    for name, split in data.splits.items():
        shards = split.shards[: -(-len(split.shards) // 10)]
        for shard in shards:
            source = os.path.join(data.directory, shard.file)
            os.symlink(source, os.path.join(folder, shard.file))
        labels = np.arange(sum(shard.num_images for shard in shards)) % data.num_classes
        counts = np.bincount(labels, minlength=data.num_classes)
        splits[name] = Split(shards, tuple(counts.tolist()))
    tenth = dataclasses.replace(data, directory=folder, splits=splits)
    manifest.write(dataset.with_digest(tenth))
    return folder


def measure_evaluation(engine: Engine, model_dir: str, data_path: str) -> float:
    """Return the peak memory of an evaluation in MiB."""
    words = ("evaluate", f"--model_dir={model_dir}", f"--data_path={data_path}")
    command = [engine.python, "-m", "alexnet_estimator", *words]
    return harness.measure_process(command)[1]


def measure_speed(num_bytes: int, command: Sequence[str]) -> float:
    """Return the MB/s at which a command reads that many bytes."""
    return num_bytes / 1e6 / harness.measure_process(command)[0]


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__, rounds=1)
    parser.add_argument("--num_images", type=int, default=1_280_000)
    parser.add_argument("--num_shards", type=int, default=1024)
    parser.add_argument("--num_classes", type=int, default=1000)
    options = parser.parse_args()
    (engine,) = harness.engines_of(options)
    versions = harness.versions_of(engine)
    program = [engine.python, "-m", "alexnet_estimator"]
    with tempfile.TemporaryDirectory() as folder:
        whole, run = os.path.join(folder, "whole"), os.path.join(folder, "run")
        os.mkdir(whole)
        data = write(whole, options)
        tenth = link_tenth(data, os.path.join(folder, "tenth"))
        begin = functools.partial(start.measure_first_step, engine, whole)
        train = (f"--model_dir={run}", "--train_steps=1", "--config=configs/tiny.py")
        harness.run_job(engine, "train", f"--data_path={tenth}", *train)
        paths = [path for name in dataset.SPLITS for path in data.shard_paths(name)]
        num_bytes = sum(map(os.path.getsize, paths))
        verify = [*program, "verify", f"--data_path={whole}"]
        read = [sys.executable, "-c", READ_ONCE, *paths]
        benchmarks: List[Tuple[harness.Kind, Dict[str, harness.Measure]]] = [
            (START, {"train": begin}),
            (
                MEMORY,
                {
                    "all": functools.partial(measure_evaluation, engine, run, whole),
                    "a tenth": functools.partial(
                        measure_evaluation, engine, run, tenth
                    ),
                },
            ),
            (
                VERIFY,
                {
                    "verify": functools.partial(measure_speed, num_bytes, verify),
                    "read": functools.partial(measure_speed, num_bytes, read),
                },
            ),
        ]
        for kind, cases in benchmarks:
            harness.run_and_append(options, kind, cases, dict.fromkeys(cases, versions))


if __name__ == "__main__":
    main()
