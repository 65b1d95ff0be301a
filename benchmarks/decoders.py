"""Decode TFRecord files in two other ways than ours, and print the speed.

``naive`` is a tf.data pipeline that decodes, resizes, crops, flips and batches.
``libjpeg-turbo`` only decodes whole pictures on one core, through simplejpeg
(``pip install simplejpeg``), with the fast DCT and without smoothing of the chroma.
This is the highest speed of the library.

The output is images per second of wall time and per second of CPU time.
"""

import argparse
import glob
import itertools
import os
import time
from typing import Iterator, List, Tuple

import tensorflow.compat.v1 as tf

PICTURE = "image/encoded"
LABEL = "image/class/label"
SHORT_SIDE = 256
IMAGE_SIZE = 227
BATCH_SIZE = 100


def parse(record: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """Return the image, float32 [227, 227, 3], and the label of a record."""
    features = {
        PICTURE: tf.FixedLenFeature([], tf.string),
        LABEL: tf.FixedLenFeature([], tf.int64),
    }
    example = tf.parse_single_example(record, features)
    image = tf.image.decode_jpeg(example[PICTURE], channels=3)
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    sides *= SHORT_SIDE / tf.reduce_min(sides)
    image = tf.image.resize_images(image, tf.cast(tf.round(sides), tf.int32))
    image = tf.random_crop(image, [IMAGE_SIZE, IMAGE_SIZE, 3])
    return tf.image.random_flip_left_right(image), example[LABEL]


def take_batches(files: List[str], num_batches: int) -> Iterator[int]:
    """Run the naive pipeline, and yield the number of images of each batch."""
    data = (
        tf.data.TFRecordDataset(files)
        .repeat()
        .shuffle(1000)
        .map(parse, num_parallel_calls=tf.data.experimental.AUTOTUNE)
        .batch(BATCH_SIZE)
        .prefetch(2)
    )
    iterator = tf.data.make_initializable_iterator(data)
    take = tf.group(*iterator.get_next())
    with tf.Session() as session:
        session.run(iterator.initializer)
        for _ in range(num_batches):
            session.run(take)
            yield BATCH_SIZE


def decode_pictures(files: List[str], num_batches: int) -> Iterator[int]:
    """Decode with libjpeg-turbo, and yield the number of images of each batch."""
    import simplejpeg

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pictures = [
        tf.train.Example.FromString(record)
        .features.feature[PICTURE]
        .bytes_list.value[0]
        for file in files
        for record in tf.io.tf_record_iterator(file)
    ]
    endless = itertools.cycle(pictures)
    for _ in range(num_batches):
        for picture in itertools.islice(endless, BATCH_SIZE):
            simplejpeg.decode_jpeg(picture, fastdct=True, fastupsample=True)
        yield BATCH_SIZE


WAYS = {"naive": take_batches, "libjpeg-turbo": decode_pictures}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=sorted(WAYS))
    parser.add_argument("data_path", help="folder with train-*.tfrecord")
    parser.add_argument("--batches", type=int, default=60, help="measured batches")
    parser.add_argument("--warmup_batches", type=int, default=10)
    options = parser.parse_args()
    tf.disable_v2_behavior()
    files = sorted(glob.glob(os.path.join(options.data_path, "train-*.tfrecord")))
    counts = WAYS[options.way](files, options.warmup_batches + options.batches)
    for _ in range(options.warmup_batches):
        next(counts)
    wall_secs, cpu_secs = time.perf_counter(), time.process_time()
    num_images = sum(counts)
    print(
        num_images / (time.perf_counter() - wall_secs),
        num_images / (time.process_time() - cpu_secs),
    )


if __name__ == "__main__":
    main()
