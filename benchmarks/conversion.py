"""Conversion of a folder of pictures: ours with 2 processes, and a loop over Pillow.

    .venv/1.15-intel/bin/python -m benchmarks.conversion --output=F --pictures=FOLDER

The loop is what one writes by hand: decode, resize the short side to 256 px (cubic, as
ours does), encode as JPEG of quality 90, write a TFRecord.  It checks, measures and
resumes nothing.  Ours decodes every picture too, but stores plain JPEGs that have the
size already as they are: the more of them, the faster it is.  Both run in this process
and its children, without the start of Python; the folder has one subfolder for each
class.
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
    """Convert one picture after the other; return images/s."""
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
    """Convert with the package; return images/s."""
    start = time.perf_counter()
    settings = config_from({"convert": {"num_workers": num_workers}}).convert
    with tempfile.TemporaryDirectory() as folder:
        dataset = convert(pictures, folder, settings, show_progress=False)
        num_images = sum(split.num_images for split in dataset.splits.values())
        return num_images / (time.perf_counter() - start)


def main() -> None:
    """Measure as the flags say."""
    parser = harness.make_parser(__doc__, rounds=3)
    parser.add_argument("--pictures", required=True, help="folder")
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
