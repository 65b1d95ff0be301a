"""The description of a data set: its classes, shards, counts and colours."""

import dataclasses
import hashlib
import json
import os
from typing import Any, Dict, List, Tuple

from alexnet_estimator.config import Config

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)

NUM_SYNTHETIC_IMAGES = 10_000

Rgb = Tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A TFRecord file.

    Attributes:
        file: Path of the file, relative to the folder of the data set.
        num_images: Number of pictures in the file.
        num_bytes: Size of the file.
        sha256: SHA-256 (hex) of the file; empty if it has not been computed.
    """

    file: str
    num_images: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """The shards of a split, and the number of pictures of each class in them."""

    shards: Tuple[Shard, ...]
    class_counts: Tuple[int, ...]

    @property
    def num_images(self) -> int:
        """Return the number of pictures in all shards."""
        return sum(shard.num_images for shard in self.shards)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in a folder of shards.

    Attributes:
        directory: Folder of the shards.
        class_names: Names of the classes, in the order of the labels 0, 1, ...
        splits: Splits ``train`` and ``validation``.  Both are always present, but one
            of them may have no shards.
        mean_rgb: Mean red, green and blue of the training pixels, 0 to 255.
        rgb_covariance: 3 x 3 covariance matrix of red, green and blue of the training
            pixels.
        digest: SHA-256 (hex) of all attributes above except for ``directory``.
        label_offset: Number that is subtracted from the labels in the records.
        conversion: Options that ``convert`` used; empty for foreign data.
        num_bad_records: Number of damaged records that have been left out.
    """

    directory: str
    class_names: Tuple[str, ...]
    splits: Dict[str, Split]
    mean_rgb: Rgb
    rgb_covariance: Tuple[Rgb, Rgb, Rgb]
    digest: str
    label_offset: int = 0
    conversion: Dict[str, Any] = dataclasses.field(default_factory=dict)
    num_bad_records: int = 0

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.class_names)

    @property
    def short_side(self) -> int:
        """Return the short side of all pictures, in pixels; 0 if it is unknown.

        If it is known, all pictures are JPEGs.
        """
        return int(self.conversion.get("short_side", 0))

    @property
    def mean_weight(self) -> float:
        """Return the mean weight of the training pictures; 0 if there are no weights.

        Division by it keeps the scale of the loss and the meaning of the learning rate.
        """
        return float(self.conversion.get("mean_weight", 0))

    @property
    def left_out(self) -> List[str]:
        """Return one line of text for each group of files that were left out."""
        num_rejects = self.conversion.get("num_rejects", 0)
        lines = list(self.conversion.get("left_out", []))
        if num_rejects:
            lines.insert(0, f"{num_rejects} x unusable picture, see rejects.csv")
        return lines

    def shard_paths(self, split: str) -> List[str]:
        """Return the paths of the shards of a split, in order."""
        shards = self.splits[split].shards
        return [os.path.join(self.directory, shard.file) for shard in shards]

    def content(self) -> Dict[str, Any]:
        """Return the attributes that identify the data, as JSON can store them."""
        names = ("class_names", "mean_rgb", "rgb_covariance", "splits")
        values = dataclasses.asdict(self)
        return {name: values[name] for name in names}


def with_digest(dataset: Dataset) -> Dataset:
    """Return a copy of the data set with the digest of its content."""
    canonical = json.dumps(dataset.content(), sort_keys=True).encode()
    return dataclasses.replace(dataset, digest=hashlib.sha256(canonical).hexdigest())


def as_tuples(value: Any) -> Any:
    """Convert nested lists of numbers to nested tuples of floats."""
    is_list = isinstance(value, (list, tuple))
    return tuple(map(as_tuples, value)) if is_list else float(value)


def synthetic_dataset(data: Config) -> Dataset:
    """Return the description of a synthetic data set."""
    least, num_larger = divmod(NUM_SYNTHETIC_IMAGES, data.synthetic_classes)
    counts = [least + (i < num_larger) for i in range(data.synthetic_classes)]
    shard = Shard(file="synthetic", num_images=sum(counts), num_bytes=0, sha256="")
    split = Split(shards=(shard,), class_counts=tuple(counts))
    return Dataset(
        directory="synthetic",
        class_names=tuple(str(label) for label in range(data.synthetic_classes)),
        splits={"train": split, "validation": split},
        mean_rgb=(127.5, 127.5, 127.5),
        rgb_covariance=((0.0,) * 3,) * 3,
        digest="synthetic",
    )
