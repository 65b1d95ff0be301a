"""The pictures of some answers of an evaluation."""

import base64
import io
import itertools
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Set, Tuple

from PIL import Image

from alexnet_estimator import inputs
from alexnet_estimator.console import warn
from alexnet_estimator.hooks.answers import Answer
from alexnet_estimator.jobs.evaluate import evaluation_reader
from alexnet_estimator.jobs.session import Run
from alexnet_estimator.records import examples, pictures, tfrecord

THUMBNAIL_PIXELS = 160

_Place = Tuple[str, int]  # A file, and the number of a record in it.


class Sample(NamedTuple):
    """An answer and its picture.

    Attributes:
        answer: Answer of the network.
        image: Picture of the record, of at most twice the size of a thumbnail.
        file: Path of the picture file before it was converted.
    """

    answer: Answer
    image: Image.Image
    file: str


def read_samples(
    run: Run, answers: Sequence[Answer], report: Callable[[str], None] = warn
) -> List[Sample]:
    """Read the pictures of some answers of any rank.

    Synthetic data has no pictures.  A picture that cannot be read is reported and left
    out, because a drawing must not end a training.

    Args:
        run: Opened run.
        answers: Answers of an evaluation of the run.
        report: Function that is called with each problem.
    """
    if run.config.data.synthetic:
        return []
    places = _find(run, answers)
    by_file: Dict[str, Set[int]] = {}
    for path, index in places:
        by_file.setdefault(path, set()).add(index)
    records: Dict[_Place, bytes] = {}
    for path, indices in by_file.items():
        try:
            found = tfrecord.read_at(path, indices)
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or error
            report(f"{path}: its pictures are not shown: {problem}")
            continue
        records.update({(path, index): data for index, data in found.items()})
    samples = []
    for answer, place in zip(answers, places):
        if place not in records:
            continue
        path, index = place
        try:
            encoded, _ = examples.parse(records[place])
            image = pictures.decode(encoded)
        except Exception as error:  # Pillow raises errors of many types.
            problem = pictures.describe_error(error)
            report(f"{path}: the picture of record {index} is not shown: {problem}")
            continue
        # Many photos of full size would take gigabytes.
        image.thumbnail((2 * THUMBNAIL_PIXELS, 2 * THUMBNAIL_PIXELS))
        samples.append(Sample(answer, image, examples.parse_path(records[place])))
    return samples


def _find(run: Run, answers: Sequence[Answer]) -> List[_Place]:
    """Return the places of the records that the answers are about."""
    orders = {}
    for rank in {answer.rank for answer in answers}:
        reader = evaluation_reader(run)._replace(rank=rank)
        slices = inputs.slices_of(run.dataset, "validation", reader)
        last = max(answer.position for answer in answers if answer.rank == rank)
        order = inputs.reading_order(slices, run.config.data)
        orders[rank] = list(itertools.islice(order, last + 1))
    return [orders[answer.rank][answer.position] for answer in answers]


def describe(run: Run, answers: Sequence[Answer]) -> List[Dict[str, Any]]:
    """Return the ``pictures`` of ``samples.json``; see ``read_samples``.

    Returns:
        A mapping for each picture, with ``label``, ``answers`` (pairs of class and
        probability, the most probable first), ``file`` and ``jpeg`` (a thumbnail in
        base64).
    """
    return [_describe(sample) for sample in read_samples(run, answers)]


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
