"""Which pictures are held out, and how many go into a file; equal on all machines."""

import collections
import hashlib
import itertools
from typing import Dict, List, Sequence

from alexnet_estimator.config import Config
from alexnet_estimator.errors import DataError
from alexnet_estimator.records.dataset import SPLITS, VALIDATION
from alexnet_estimator.records.layouts import Picture, PictureSet

_IMAGES_PER_SHARD = 512


def split_pictures(pictures: PictureSet, settings: Config) -> Dict[str, List[Picture]]:
    """Shuffle and split by a hash of seed and path, the same on every machine."""

    def place(picture: Picture) -> bytes:
        text = f"{settings.split_seed}:{picture.path}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    splits: Dict[str, List[Picture]] = {name: [] for name in SPLITS}
    left = _held_out(pictures, settings)
    for picture in sorted(pictures.pictures, key=place):
        is_held_out = left[picture.label] > 0
        left[picture.label] -= is_held_out
        splits[VALIDATION if is_held_out else picture.split].append(picture)
    return splits


def _held_out(pictures: PictureSet, settings: Config) -> List[int]:
    """Return how many pictures of each class go from training to validation."""
    num_classes, total = len(pictures.class_names), len(pictures.pictures)
    if pictures.has_validation:
        return [0] * num_classes
    counts = collections.Counter(picture.label for picture in pictures.pictures)
    most = total - num_classes
    if settings.eval_images > most:
        raise DataError(
            f"convert.eval_images is {settings.eval_images}, but of {total} pictures "
            f"of {num_classes} classes at most {most} can be held out",
            pictures.source,
        )
    wanted = settings.eval_images or round(total * settings.eval_fraction)
    class_counts = [counts[label] for label in range(num_classes)]
    return count_held_out(class_counts, min(wanted, most))


def count_held_out(class_counts: Sequence[int], num_held_out: int) -> List[int]:
    """Spread held-out pictures over the classes in proportion, exactly.

    Every class keeps a picture for training.

    Args:
        class_counts: pictures of each class, at least 1.
        num_held_out: in all, at most ``sum(class_counts) - len(class_counts)``.
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


def count_shards(num_images: int, images_per_shard: int) -> int:
    """Return into how many files a split goes.

    Args:
        num_images: of the split.
        images_per_shard: at most; 0 chooses.
    """
    if images_per_shard:
        return -(-num_images // images_per_shard)
    # Up to 8 of a small split, so that several processes can share the work evenly.
    return max(-(-num_images // _IMAGES_PER_SHARD), min(8, -(-num_images // 128)))
