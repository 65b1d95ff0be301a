"""Drawings of kernels, confusion matrices and input samples."""

import io
import math
from typing import Dict, Optional, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from alexnet_estimator import inputs, report
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.hooks.answers import Answer
from alexnet_estimator.jobs.evaluate import Evaluation
from alexnet_estimator.jobs.samples import THUMBNAIL_PIXELS, Sample, read_samples
from alexnet_estimator.jobs.session import Run, explaining_data_errors
from alexnet_estimator.networks import Network, find_network
from alexnet_estimator.runtime.base import session_config


def draw_kernels(network: Network, checkpoint: str, zoom: int = 4) -> Dict[str, bytes]:
    """Draw the kernels of the layer ``network.drawn_kernels`` in a grid.

    Args:
        network: Trained network.
        checkpoint: Path prefix of a checkpoint.
        zoom: Side in pixels of the square that shows a weight.

    Returns:
        A mapping from ``LAYER_kernels`` to the bytes of a PNG, in which every kernel
        uses the full range of colours.  It is empty if the layer has no kernel of the
        shape [height, width, 3, outputs].
    """
    if not network.drawn_kernels:
        return {}
    scope = f"{network.name}/{network.drawn_kernels}/"
    reader = restore.open_reader(checkpoint)
    names = sorted(
        (
            name
            for name, shape in reader.get_variable_to_shape_map().items()
            if name.startswith(scope) and len(shape) == 4 and shape[2] == 3
        ),
        key=len,  # The slots of the optimizer have longer names than the kernel.
    )
    if not names:
        return {}
    kernels = reader.get_tensor(names[0])
    low = kernels.min(axis=(0, 1, 2), keepdims=True)
    span = np.maximum(kernels.max(axis=(0, 1, 2), keepdims=True) - low, 1e-12)
    # [height, width, 3, outputs] -> [outputs, height, width, 3]
    tiles = np.transpose((kernels - low) / span * 255, [3, 0, 1, 2]).astype(np.uint8)
    drawing = _draw_grid(tiles.repeat(zoom, axis=1).repeat(zoom, axis=2), gap=zoom)
    return {f"{network.drawn_kernels}_kernels": drawing}


def draw_evaluation(
    run: Run,
    checkpoint: Optional[str],
    result: Evaluation,
    answers: Sequence[Answer],
) -> Dict[str, bytes]:
    """Draw the pictures that TensorBoard shows for an evaluation.

    Args:
        run: Run that is trained.
        checkpoint: Path prefix of the checkpoint that was evaluated; None if there is
            none.
        result: Evaluation of the checkpoint.
        answers: Answers of the evaluation that are shown.

    Returns:
        A mapping from ``input_samples`` (the next training images), ``mistakes``,
        ``LAYER_kernels`` and ``confusion_matrix`` to the bytes of a PNG.  Pictures that
        cannot be drawn are left out, such as the mistakes in synthetic data.
    """
    network = find_network(run.config.model.network)
    with explaining_data_errors(run):
        samples = draw_input_samples(run, result["global_step"])
    confusion = draw_confusion(result)
    wrong = [answer for answer in answers if not answer.is_right]
    # The report names unreadable pictures, once and not after each evaluation.
    mistakes = read_samples(run, wrong, report=lambda problem: None)
    return {
        "input_samples": samples,
        **({"mistakes": draw_mistakes(mistakes, run)} if mistakes else {}),
        **(draw_kernels(network, checkpoint) if checkpoint else {}),
        **({"confusion_matrix": confusion} if confusion else {}),
    }


def draw_mistakes(mistakes: Sequence[Sample], run: Run) -> bytes:
    """Draw pictures in a grid, with the true and the predicted class below each.

    Args:
        mistakes: Pictures whose predictions are wrong, at least one.
        run: Run with the names of the classes.
    """
    names, size = run.dataset.class_names, THUMBNAIL_PIXELS
    tiles = []
    for answer, image, _ in mistakes:
        tile = Image.new("RGB", (size, size + 30), "white")
        tile.paste(ImageOps.fit(image, (size, size)), (0, 0))
        texts = (
            f"is {names[answer.label]}",
            f"{answer.probabilities[0]:.0%} {names[answer.classes[0]]}",
        )
        for line, text in enumerate(texts):
            # The default font of Pillow has Latin letters only and raises an error for
            # others.
            plain = text.encode("ascii", "replace").decode()
            ImageDraw.Draw(tile).text((2, size + 2 + 13 * line), plain, "black")
        tiles.append(np.asarray(tile))
    return _draw_grid(np.stack(tiles), gap=4)


def draw_confusion(result: Evaluation) -> Optional[bytes]:
    """Draw the confusion matrix of an evaluation as PNG.

    Returns:
        The bytes of the PNG, or None if matplotlib is not installed or the evaluation
        has no valid counts.
    """
    answers = report.decode_answers(result)
    if answers is None or not report.can_draw():
        return None
    return report.draw_confusion(answers).png


def draw_input_samples(run: Run, step: int, num_images: int = 32) -> bytes:
    """Draw the first images of a training batch of this rank, after augmentation.

    Args:
        run: Opened run.
        step: Global step of the batch.
        num_images: Largest number of images; a batch may have fewer.

    Returns:
        The bytes of a PNG.
    """
    data = Config(run.config.data.to_dict())
    # It would take long to fill a shuffle buffer of the configured size.
    data.shuffle_images = min(data.shuffle_images, 64)
    with tf.Graph().as_default(), tf.Session(config=session_config(1)) as session:
        batches = inputs.train_batches(run.dataset, data, run.reader, step)
        iterator = tf.data.make_initializable_iterator(batches)
        features, _ = iterator.get_next()
        session.run(iterator.initializer)
        images = session.run(features["image"])
    return _draw_grid(images[:num_images], gap=4)


def _draw_grid(tiles: np.ndarray, gap: int) -> bytes:
    """Draw images in a grid that has about twice as many columns as rows.

    Args:
        tiles: Images, uint8 [n, height, width, 3].
        gap: Distance between neighbouring images in pixels.

    Returns:
        The bytes of a PNG.
    """
    columns = math.ceil(math.sqrt(len(tiles) * 2))
    rows = math.ceil(len(tiles) / columns)
    height, width = tiles.shape[1:3]
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, 3)
    canvas = np.full(shape, 255, np.uint8)
    for index, tile in enumerate(tiles):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, format="PNG")
    return buffer.getvalue()
