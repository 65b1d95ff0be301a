"""The pictures of some answers of an evaluation."""

import base64
import io
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from PIL import Image

from alexnet_estimator import inputs
from alexnet_estimator.console import warn
from alexnet_estimator.hooks.answers import Answer, AnswersHook
from alexnet_estimator.jobs.evaluate import evaluation_reader
from alexnet_estimator.jobs.session import Run
from alexnet_estimator.records import examples, pictures, tfrecord

THUMBNAIL_PIXELS = 160


class Sample(NamedTuple):
    """An answer and its picture.

    Attributes:
        answer: Answer of the network.
        image: Picture of the record.
        file: Path of the picture file before it was converted.
    """

    answer: Answer
    image: Image.Image
    file: str


def read_samples(run: Run, answers: Sequence[Answer]) -> List[Sample]:
    """Read the pictures of some answers of this rank.

    Synthetic data has no pictures.  A picture that cannot be read is left out, with a
    warning: the evaluation has counted it, and a drawing must not end a training.
    """
    if run.config.data.synthetic or not answers:
        return []
    slices = inputs.slices_of(run.dataset, "validation", evaluation_reader(run))
    positions = {answer.position for answer in answers}
    places = {
        position: place
        for position, place in enumerate(inputs.reading_order(slices, run.config.data))
        if position in positions
    }
    records: Dict[Tuple[str, int], bytes] = {}
    for path in sorted({path for path, _ in places.values()}):
        wanted = {index for other, index in places.values() if other == path}
        try:
            found = tfrecord.read_at(path, wanted)
        except (OSError, ValueError) as error:
            warn(f"{path}: its pictures are not shown: {error}")
            continue
        records.update({(path, index): data for index, data in found.items()})
    samples = []
    for answer in answers:
        path, index = place = places[answer.position]
        if place not in records:
            continue
        try:
            encoded, _ = examples.parse(records[place])
            image = pictures.decode(encoded)
        except Exception as error:  # Pillow raises errors of many types.
            problem = pictures.describe_error(error)
            warn(f"{path}: the picture of record {index} is not shown: {problem}")
            continue
        samples.append(Sample(answer, image, examples.parse_path(records[place])))
    return samples


def describe(run: Run, answers: AnswersHook) -> Dict[str, Any]:
    """Return the content of ``samples.json``, except for the global step.

    Returns:
        A mapping with ``num_images``, the number of images of this rank,
        ``num_mistakes``, the number of mistakes among them, and ``pictures``: the most
        confident mistakes and some right answers.  Each picture has ``label``,
        ``answers`` (pairs of class and probability, the most probable first), ``file``
        and ``jpeg`` (a thumbnail in base64).
    """
    shown = read_samples(run, [*answers.mistakes, *answers.right])
    return {
        "num_images": answers.num_images,
        "num_mistakes": answers.num_mistakes,
        "pictures": [_describe(sample) for sample in shown],
    }


def _describe(sample: Sample) -> Dict[str, Any]:
    pairs = zip(sample.answer.classes, sample.answer.probabilities)
    sample.image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    jpeg = io.BytesIO()
    sample.image.save(jpeg, "JPEG", quality=80)
    return {
        "label": sample.answer.label,
        "answers": [[index, round(share, 4)] for index, share in pairs],
        "file": sample.file,
        "jpeg": base64.b64encode(jpeg.getvalue()).decode(),
    }
