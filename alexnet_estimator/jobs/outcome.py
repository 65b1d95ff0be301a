"""What a trained run leaves for people: kernels, answered pictures, the report."""

import base64
import io
import itertools
import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

from alexnet_estimator import checkpoints, inputs, report
from alexnet_estimator.jobs.pictures import draw_conv1_kernels
from alexnet_estimator.jobs.run import Run, explain_data_errors
from alexnet_estimator.model_fn import build_model_fn
from alexnet_estimator.records import pictures, tfrecord

# Looked at for the most confident mistakes, in equal parts from all files.
MAX_IMAGES = 1000
NUM_SHOWN = 12  # Of the mistakes, and of the right answers.
NUM_ANSWERS = 3
THUMBNAIL_PIXELS = 160


class _Picture(NamedTuple):
    """A record of the validation split: label from 0, encoded picture, its origin."""

    label: int
    encoded: bytes
    file: str


def write_outcome(run: Run, step: int) -> Optional[str]:
    """Write ``conv1_kernels.png``, ``samples.json`` and ``report.html`` into the run.

    Args:
        run: a trained run; of several ranks, only rank 0 calls this.
        step: the global step of the checkpoint to show.

    Returns:
        The path of the report; None where something failed, which is then a warning.
    """
    try:
        checkpoint = checkpoints.path_of(run.model_dir, step)
        _write(run, "conv1_kernels.png", draw_conv1_kernels(checkpoint))
        if not run.config.data.synthetic:
            samples = {"global_step": step, **find_samples(run, checkpoint)}
            text = json.dumps(samples, ensure_ascii=False)
            _write(run, "samples.json", text.encode("utf-8", "replace"))
        return report.write_report([run.model_dir])
    except Exception as error:  # The training itself is complete and saved.
        tf.logging.warning("%s: no report: %r", run.model_dir, error)
        return None


def find_samples(run: Run, checkpoint: Optional[str]) -> Dict[str, Any]:
    """Find the most confident mistakes and some right answers.

    Args:
        run: an opened run with real data.
        checkpoint: path prefix; None: the newest.

    Returns:
        ``num_images`` that were looked at, ``num_mistakes`` among them, and
        ``pictures``, of which each has ``label``, ``answers`` (label and probability,
        the likeliest first), ``file`` and ``jpeg`` (base64, small).
    """
    listed = list(_read_pictures(run))
    with explain_data_errors(run):
        probabilities = _predict(run, checkpoint)[: len(listed)]
    is_right = probabilities.argmax(axis=1) == [picture.label for picture in listed]
    by_confidence = np.argsort(-probabilities.max(axis=1), kind="stable")
    mistakes = [i for i in by_confidence if not is_right[i]][:NUM_SHOWN]
    right = np.flatnonzero(is_right)[:NUM_SHOWN]
    return {
        "num_images": len(listed),
        "num_mistakes": int(np.sum(~is_right)),
        "pictures": [_sample(listed[i], probabilities[i]) for i in [*mistakes, *right]],
    }


def _read_pictures(run: Run) -> Iterator[_Picture]:
    """Read the first records of every file, as ``_predict`` does."""
    for path in run.dataset.shard_paths("validation"):
        for record in itertools.islice(
            tfrecord.read_records(path), _num_images_per_file(run)
        ):
            features = tf.train.Example.FromString(record.data).features.feature
            names = features["image/filename"].bytes_list.value
            yield _Picture(
                features["image/class/label"].int64_list.value[0]
                - run.dataset.label_offset,
                features["image/encoded"].bytes_list.value[0],
                os.fsdecode(names[0]) if names else "",
            )


def _num_images_per_file(run: Run) -> int:
    return -(-MAX_IMAGES // len(run.dataset.shard_paths("validation")))


def _predict(run: Run, checkpoint: Optional[str]) -> np.ndarray:
    """Return probabilities, float32 ``[n, num_classes]``; the last rows are filler."""
    paths = run.dataset.shard_paths("validation")
    batch_size = run.config.train.batch_size_per_rank
    num_per_file = _num_images_per_file(run)

    def decode(record: tf.Tensor) -> inputs.Features:
        feature = tf.io.FixedLenFeature([], tf.string)
        parsed = tf.io.parse_single_example(record, {"image/encoded": feature})
        size = run.config.data.image_size
        return {"image": inputs.decode_for_eval(parsed["image/encoded"], size)}

    def batches() -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices([os.fsencode(p) for p in paths])
        records = files.flat_map(
            lambda path: tf.data.TFRecordDataset(path).take(num_per_file)
        )
        # NPUs need shapes that do not change: the last batch is filled up.
        filler = records.take(1).repeat(batch_size - 1)
        images = records.concatenate(filler).map(decode, num_parallel_calls=2)
        return images.batch(batch_size, drop_remainder=True)

    model_fn = build_model_fn(run.config, run.dataset.num_classes, run.runtime)
    estimator = run.runtime.make_estimator(model_fn, run.model_dir, run.config)
    predictions = estimator.predict(
        batches,
        ["probabilities"],
        checkpoint_path=checkpoint,
        yield_single_examples=False,
    )
    return np.concatenate([batch["probabilities"] for batch in predictions])


def _sample(picture: _Picture, probabilities: np.ndarray) -> Dict[str, Any]:
    likeliest = np.argsort(-probabilities, kind="stable")[:NUM_ANSWERS]
    answers: List[Any] = [
        [int(i), round(float(probabilities[i]), 4)] for i in likeliest
    ]
    image = Image.fromarray(pictures.decode(picture.encoded))
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=80)
    return {
        "label": picture.label,
        "answers": answers,
        "file": picture.file,
        "jpeg": base64.b64encode(jpeg.getvalue()).decode(),
    }


def _write(run: Run, name: str, content: bytes) -> None:
    path = os.path.join(run.model_dir, name)
    with open(f"{path}.tmp", "wb") as file:
        file.write(content)
    os.replace(f"{path}.tmp", path)
