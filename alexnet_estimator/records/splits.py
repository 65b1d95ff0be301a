"""The choice of the pictures that are held out for validation.

It depends on the paths, the classes and the settings only, so that it is the same on
every machine.
"""

import hashlib
import itertools
from typing import Dict, List, Sequence, Set

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.console import list_some
from alexnet_estimator.errors import DataError
from alexnet_estimator.records.dataset import SPLITS, VALIDATION
from alexnet_estimator.records.layouts import Picture, PictureSet

FOLD_OPTIONS = ("num_folds", "fold")


def split_pictures(pictures: PictureSet, settings: Config) -> Dict[str, List[Picture]]:
    """Shuffle and split by a hash of seed and path, which is equal on every machine."""

    def place(picture: Picture) -> bytes:
        text = f"{settings.split_seed}:{picture.path}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    shuffled = sorted(pictures.pictures, key=place)
    choose = _choose_fold if settings.num_folds else _choose_fraction
    held_out = choose(pictures, shuffled, settings)
    splits: Dict[str, List[Picture]] = {name: [] for name in SPLITS}
    for picture in shuffled:
        split = VALIDATION if picture in held_out else picture.split
        splits[split].append(picture)
    return splits


def _choose_fold(
    pictures: PictureSet, shuffled: List[Picture], settings: Config
) -> Set[Picture]:
    """Return the pictures of the fold.  The folds are disjoint and cover all pictures.

    Their sizes differ by at most one picture, in each class and in total.
    """
    num_folds = settings.num_folds
    if pictures.has_validation:
        raise DataError(
            f"convert.num_folds is {num_folds}, but the folders already hold out "
            f"pictures ({pictures.layout}): leave it out, or divide the training "
            "pictures only, with --config.convert.train_folder=FOLDER",
            pictures.source,
        )
    by_class = sorted(shuffled, key=lambda picture: picture.label)
    counts = np.bincount([picture.label for picture in by_class])
    small = [n for n, count in zip(pictures.class_names, counts) if count < num_folds]
    if small:
        raise DataError(
            f"convert.num_folds is {num_folds}, but there are fewer pictures of "
            f"{list_some(small)}: use fewer folds, or add pictures",
            pictures.source,
        )
    return set(by_class[settings.fold :: num_folds])


def _choose_fraction(
    pictures: PictureSet, shuffled: List[Picture], settings: Config
) -> Set[Picture]:
    """Return the first pictures of each class; the settings decide their number."""
    num_classes, total = len(pictures.class_names), len(pictures.pictures)
    if pictures.has_validation:
        return set()
    most = total - num_classes
    if settings.eval_images > most:
        raise DataError(
            f"convert.eval_images is {settings.eval_images}, but of {total} pictures "
            f"of {num_classes} classes, at most {most} can be held out",
            pictures.source,
        )
    wanted = settings.eval_images or round(total * settings.eval_fraction)
    counts = np.bincount([p.label for p in shuffled], minlength=num_classes)
    left = count_held_out(counts.tolist(), min(wanted, most))
    chosen = set()
    for picture in shuffled:
        if left[picture.label] > 0:
            left[picture.label] -= 1
            chosen.add(picture)
    return chosen


def count_held_out(class_counts: Sequence[int], num_held_out: int) -> List[int]:
    """Distribute the held-out pictures over the classes in proportion to their sizes.

    The sum of the result is exactly ``num_held_out``, and every class keeps at least
    one picture for training.

    Args:
        class_counts: Number of pictures of each class, at least 1.
        num_held_out: Number of held-out pictures of all classes, at most
            ``sum(class_counts) - len(class_counts)``.

    Returns:
        Number of held-out pictures of each class.
    """
    total = sum(class_counts)
    held_out = [count * num_held_out // total for count in class_counts]
    by_remainder = sorted(
        range(len(class_counts)),
        key=lambda label: (-(class_counts[label] * num_held_out % total), label),
    )
    num_left = num_held_out - sum(held_out)
    for label in itertools.cycle(by_remainder):
        if num_left == 0:
            break
        if held_out[label] < class_counts[label] - 1:
            held_out[label] += 1
            num_left -= 1
    return held_out
