"""Writing of the sample predictions and of the report after a training."""

import base64
import io
import itertools
import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import numpy as np

from alexnet_estimator import checkpoints, files, inputs, report
from alexnet_estimator.console import warn
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError
from alexnet_estimator.hooks.heartbeat import Heartbeat
from alexnet_estimator.jobs.pictures import draw_kernels
from alexnet_estimator.jobs.predict.classifier import trained
from alexnet_estimator.jobs.session import Run
from alexnet_estimator.networks import find_network
from alexnet_estimator.records import examples, pictures, tfrecord

# Largest number of images in which the most confident mistakes are searched, about the
# same number from each file.  More images would delay the end of a training on a CPU by
# many seconds.
MAX_IMAGES = 300
NUM_SHOWN = 12  # Number of mistakes, and number of correct predictions.
PHASE = "report"  # Phase of the heartbeats, one for each file and for each batch.
NUM_ANSWERS = 3
THUMBNAIL_PIXELS = 160


class _Picture(NamedTuple):
    """A record of the validation split.

    Attributes:
        label: Label, counted from 0.
        encoded: Content of the picture file.
        file: Path of the picture file before it was converted.
    """

    label: int
    encoded: bytes
    file: str


def write_outcome(run: Run, step: int, heartbeat: Heartbeat) -> Optional[str]:
    """Write drawings of kernels, ``samples.json`` and ``report.html`` to the run.

    Only rank 0 calls this function.

    Args:
        run: Trained run.
        step: Global step of the checkpoint.
        heartbeat: Heartbeat of this process.  Without heartbeats, the launcher would
            take a long report for a hang and stop the job.

    Returns:
        The path of the report, or None after a failure, which is printed as a warning.
    """
    try:
        heartbeat.beat(PHASE)
        checkpoint = checkpoints.path_of(run.model_dir, step)
        if checkpoint is None:
            raise DataError(f"no checkpoint of step {step}")
        network = find_network(run.config.model.network)
        for name, drawing in draw_kernels(network, checkpoint).items():
            files.write_bytes(os.path.join(run.model_dir, f"{name}.png"), drawing)
        if not run.config.data.synthetic:
            samples = {"global_step": step, **find_samples(run, checkpoint, heartbeat)}
            text = json.dumps(samples, ensure_ascii=False)
            path = os.path.join(run.model_dir, "samples.json")
            files.write_bytes(path, text.encode("utf-8", "replace"))
        heartbeat.beat(PHASE)
        return report.write_report([run.model_dir])
    except Exception as error:  # The training itself is complete and saved.
        warn(f"{run.model_dir}: no report: {error!r}")
        return None


def find_samples(run: Run, checkpoint: str, heartbeat: Heartbeat) -> Dict[str, Any]:
    """Find the most confident mistakes and some correct predictions.

    Args:
        run: Opened run with real data.
        checkpoint: Path prefix of the checkpoint.
        heartbeat: Heartbeat of this process.

    Returns:
        A mapping with ``num_images``, the number of images that were searched,
        ``num_mistakes``, the number of mistakes among them, and ``pictures``.  Each
        picture has ``label``, ``answers`` (pairs of label and probability, the most
        probable first), ``file`` and ``jpeg`` (a thumbnail in base64).
    """
    listed = list(_read_pictures(run, heartbeat))
    heartbeat.beat("start")  # The graph is compiled next, which may take minutes.
    batches = []
    for batch in _predict(run, checkpoint, [picture.encoded for picture in listed]):
        heartbeat.beat(PHASE)
        batches.append(batch)
    probabilities = np.concatenate(batches)[: len(listed)]
    is_right = probabilities.argmax(axis=1) == [picture.label for picture in listed]
    by_confidence = np.argsort(-probabilities.max(axis=1), kind="stable")
    mistakes = [i for i in by_confidence if not is_right[i]][:NUM_SHOWN]
    right = np.flatnonzero(is_right)[:NUM_SHOWN]
    return {
        "num_images": len(listed),
        "num_mistakes": int(np.sum(~is_right)),
        "pictures": [_sample(listed[i], probabilities[i]) for i in [*mistakes, *right]],
    }


def _read_pictures(run: Run, heartbeat: Heartbeat) -> Iterator[_Picture]:
    """Yield the first records of every file of the validation split."""
    paths = run.dataset.shard_paths("validation")
    num_per_file = -(-MAX_IMAGES // len(paths))
    for path in paths:
        heartbeat.beat(PHASE)
        for record in itertools.islice(tfrecord.read_records(path), num_per_file):
            encoded, label = examples.parse(record.data)
            file = examples.parse_path(record.data)
            yield _Picture(label - run.dataset.label_offset, encoded, file)


def _predict(run: Run, checkpoint: str, encoded: List[bytes]) -> Iterator[np.ndarray]:
    """Yield the probabilities of each batch, float32 [batch, num_classes].

    The last batch is padded to the size of the others.
    """
    config, num_classes = run.config, run.dataset.num_classes
    batch_size = inputs.eval_batch_size(config.data, config.train.batch_size_per_rank)

    def batches() -> tf.data.Dataset:
        return inputs.picture_batches(lambda: iter(encoded), config.data, batch_size)

    return trained(run.runtime, config, num_classes, checkpoint)(batches)


def _sample(picture: _Picture, probabilities: np.ndarray) -> Dict[str, Any]:
    likeliest = np.argsort(-probabilities, kind="stable")[:NUM_ANSWERS]
    answers: List[Any] = [
        [int(i), round(float(probabilities[i]), 4)] for i in likeliest
    ]
    image = pictures.decode(picture.encoded)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=80)
    return {
        "label": picture.label,
        "answers": answers,
        "file": picture.file,
        "jpeg": base64.b64encode(jpeg.getvalue()).decode(),
    }
