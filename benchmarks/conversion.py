"""Conversion of a folder of pictures: ours with 2 processes, and a loop over Pillow.

    .venv/1.15-intel/bin/python -m benchmarks.conversion --output=F --pictures=FOLDER

The loop is a simple script: it decodes a picture, resizes its short side to 256 px
(with the cubic filter of ours), encodes it as a JPEG of quality 90, and writes a
TFRecord.  It does not check, measure or resume anything.  Ours also decodes every
picture, but stores a JPEG that already has the right size without encoding it again, so
that it is faster with many of these.  Both run in this process and its children, and
the start of Python does not count.  The folder has one subfolder for each class.
"""

import functools
import glob
import io
import os
import tempfile
import time

import tensorflow.compat.v1 as tf
from PIL import Image

from alexnet_estimator.config import config_from
from alexnet_estimator.records.convert import convert
from benchmarks import harness

KIND = harness.Kind("conversion")
SHORT_SIDE = 256
QUALITY = 90


def loop_over(pictures: str) -> float:
    """Convert the pictures one after the other, and return images/s."""
    start = time.perf_counter()
    paths = sorted(glob.glob(os.path.join(pictures, "*", "*")))
    labels = sorted({os.path.dirname(path) for path in paths})
    with tempfile.TemporaryDirectory() as folder:
        with tf.python_io.TFRecordWriter(os.path.join(folder, "out")) as writer:
            for path in paths:
                label = labels.index(os.path.dirname(path))
                writer.write(to_example(path, label))
        return len(paths) / (time.perf_counter() - start)


def to_example(path: str, label: int) -> bytes:
    """Return the record of one picture."""
    image = Image.open(path).convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    buffer = io.BytesIO()
    resized = image.resize((width, height), Image.BICUBIC)
    resized.save(buffer, "JPEG", quality=QUALITY)
    picture = tf.train.BytesList(value=[buffer.getvalue()])
    number = tf.train.Int64List(value=[label])
    feature = {
        "image/encoded": tf.train.Feature(bytes_list=picture),
        "image/class/label": tf.train.Feature(int64_list=number),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return bytes(example.SerializeToString())


def convert_ours(pictures: str, num_workers: int) -> float:
    """Convert the pictures with the package, and return images/s."""
    start = time.perf_counter()
    settings = config_from({"convert": {"num_workers": num_workers}}).convert
    with tempfile.TemporaryDirectory() as folder:
        dataset = convert(pictures, folder, settings, show_progress=False)
        num_images = sum(split.num_images for split in dataset.splits.values())
        return num_images / (time.perf_counter() - start)


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__, rounds=3)
    parser.add_argument("--pictures", required=True, help="folder of pictures")
    options = parser.parse_args()
    cases = {
        "loop": functools.partial(loop_over, options.pictures),
        "ours 2 processes": functools.partial(convert_ours, options.pictures, 2),
        "ours 1 process": functools.partial(convert_ours, options.pictures, 1),
    }
    versions = {"tensorflow": tf.__version__, "pillow": Image.__version__}
    harness.run_and_append(options, KIND, cases, dict.fromkeys(cases, versions))


if __name__ == "__main__":
    main()
