"""The smallest network, data and training run that the tests share."""

import io
import os
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image
from tensorflow.core.protobuf import rewriter_config_pb2

from alexnet_estimator import checkpoints, inputs
from alexnet_estimator.config import Config, config_from, validate
from alexnet_estimator.hooks.guard import FiniteGuard
from alexnet_estimator.hooks.progress import StepClock
from alexnet_estimator.hooks.saving import SaveHook
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.model_fn import Training, build_model_fn
from alexnet_estimator.optim import schedules
from alexnet_estimator.optim.loss_scale import resolve_loss_scale
from alexnet_estimator.records.dataset import Dataset, Shard, Split
from alexnet_estimator.runtime.local import LocalRuntime
from alexnet_estimator.schema import PRECISION_ALIASES

IMAGE_SIZE = 63
# A crop of 227 / 256 of such a picture has exactly the size of the image.
PICTURE_SIZE = 71
STEPS_PER_EPOCH = 5


class SimulatedRank(LocalRuntime):
    """One of several ranks; the other ranks do not exist."""

    def __init__(self, rank: int, num_ranks: int):
        super().__init__("cpu")
        self.rank, self.num_ranks = rank, num_ranks


def config(**changes: Dict[str, Any]) -> Config:
    """Return a resolved configuration; ``changes`` are sections with some fields."""
    sections: Dict[str, Dict[str, Any]] = {
        "data": {"image_size": IMAGE_SIZE, "mean_rgb": (127.5, 127.5, 127.5)},
        "model": {"width_multiplier": 1 / 16},
        "optim": {"schedule": "constant"},
        "precision": {"mode": "must_keep_origin_dtype"},
        "train": {"batch_size_per_rank": 4, "steps": 10},
        "runtime": {"num_threads": 1},
    }
    for section, fields in changes.items():
        sections.setdefault(section, {}).update(fields)
    result = config_from(sections)
    validate(result)
    mode = result.precision.mode
    result.precision.mode = PRECISION_ALIASES.get(mode, mode)  # As resolve does.
    return result


def noise(seed: int, height: int = PICTURE_SIZE, width: int = PICTURE_SIZE) -> Any:
    """Return uint8 [height, width, 3] in which every crop is unique."""
    return np.random.RandomState(seed).randint(0, 256, [height, width, 3], np.uint8)


def encode(pixels: np.ndarray, kind: str = "png") -> bytes:
    """Return a picture's file content."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, kind, **({"quality": 95} if kind == "jpeg" else {})
    )
    return buffer.getvalue()


def write_dataset(
    directory: Any,
    shards: Sequence[Sequence[Tuple[bytes, int]]],
    num_classes: int,
    label_offset: int = 0,
) -> Dataset:
    """Write TFRecords that are both splits of a data set.

    Args:
        directory: New folder of the data set.
        shards: Pictures and their labels from 0, for each file.
        num_classes: Number of classes of the data set.
        label_offset: Number that is added to the stored labels.
    """
    os.makedirs(str(directory), exist_ok=True)
    described = []
    for index, records in enumerate(shards):
        file = f"data-{index}"
        with tf.python_io.TFRecordWriter(os.path.join(str(directory), file)) as writer:
            for encoded, label in records:
                writer.write(_example(encoded, label + label_offset))
        described.append(Shard(file, len(records), 0, ""))
    split = Split(tuple(described), (0,) * num_classes)
    return Dataset(
        directory=str(directory),
        class_names=tuple(map(str, range(num_classes))),
        splits={"train": split, "validation": split},
        mean_rgb=(127.5, 127.5, 127.5),
        rgb_covariance=(
            (900.0, 300.0, 0.0),
            (300.0, 400.0, 100.0),
            (0.0, 100.0, 100.0),
        ),
        digest="",
        label_offset=label_offset,
    )


def _example(encoded: bytes, label: int) -> bytes:
    picture = tf.train.BytesList(value=[encoded])
    number = tf.train.Int64List(value=[label])
    feature = {
        "image/encoded": tf.train.Feature(bytes_list=picture),
        "image/class/label": tf.train.Feature(int64_list=number),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString()


def session(num_threads: int = 0) -> tf.Session:
    """Return a session that starts fast, because it does not optimize graphs."""
    rewrites = rewriter_config_pb2.RewriterConfig(disable_meta_optimizer=True)
    options = tf.GraphOptions(rewrite_options=rewrites)
    return tf.Session(
        config=tf.ConfigProto(
            graph_options=options, intra_op_parallelism_threads=num_threads
        )
    )


def read(
    make_dataset: Callable[[], tf.data.Dataset], max_batches: int = 1 << 20
) -> List[Any]:
    """Return the first batches of a data set as numpy arrays."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    batches: List[Any] = []
    with tf.Graph().as_default(), session() as reading:
        dataset = make_dataset().with_options(options)
        iterator = tf.data.make_initializable_iterator(dataset)
        batch = iterator.get_next()
        reading.run(iterator.initializer)
        while len(batches) < max_batches:
            try:
                batches.append(reading.run(batch))
            except tf.errors.OutOfRangeError:
                break
    return batches


def make_training(
    settings: Config, make_hooks: Callable[[StepTensors], list] = lambda tensors: []
) -> Training:
    """Return the arguments of a training graph."""
    plan = schedules.plan_learning_rate(
        settings.optim, STEPS_PER_EPOCH, settings.train.steps
    )
    return Training(plan, 1.0, make_hooks)


def train(
    settings: Config,
    dataset: Dataset,
    model_dir: Any,
    last_step: int,
    first_step: int = 0,
    corrupt: Optional[Callable[[tf.data.Dataset], tf.data.Dataset]] = None,
    hooks: Sequence[tf.train.SessionRunHook] = (),
) -> None:
    """Train through Estimator with the project's hooks, resuming an existing run.

    Args:
        settings: Resolved configuration, see ``config``.
        dataset: Data of the training.
        model_dir: Folder of the checkpoints.
        last_step: Global step at which training ends.
        first_step: Global step at which training begins.
        corrupt: Function that changes the stream of batches.
        hooks: More hooks, which are called before the others.
    """
    runtime = LocalRuntime("cpu")

    def make_hooks(tensors: StepTensors) -> list:
        skips = resolve_loss_scale(settings.precision) != "none"
        guard = FiniteGuard(
            tensors, skips, settings.precision.max_skipped_steps, str(model_dir)
        )
        return [
            *hooks,
            guard,
            SaveHook(str(model_dir), settings.train, StepClock(), True),
        ]

    def input_fn() -> tf.data.Dataset:
        reader = inputs.Reader(
            0, 1, settings.train.batch_size_per_rank, settings.train.seed
        )
        batches = inputs.train_batches(dataset, settings.data, reader, first_step)
        return corrupt(batches) if corrupt else batches

    # A job creates the folder; TF 2.15's Estimator would do so when it saves.
    os.makedirs(str(model_dir), exist_ok=True)
    training = make_training(settings, make_hooks)._replace(
        checkpoint=checkpoints.path_of(str(model_dir), first_step)
    )
    model_fn = build_model_fn(settings, dataset.num_classes, runtime, training)
    estimator = runtime.make_estimator(model_fn, str(model_dir), settings)
    estimator.train(input_fn, max_steps=last_step)
