"""What the rest of the job knows about its data: classes, shards, counts, colours."""

import dataclasses
import hashlib
import json
import os
from typing import Any, Dict, List, Tuple

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)

Rgb = Tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file; ``sha256`` is empty where nobody has measured it."""

    file: str
    num_images: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """The shards of one split and how many pictures of each class they hold."""

    shards: Tuple[Shard, ...]
    class_counts: Tuple[int, ...]

    @property
    def num_images(self) -> int:
        """Count the pictures of all shards."""
        return sum(shard.num_images for shard in self.shards)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A folder of shards.

    Attributes:
        directory: Folder of the shards.
        class_names: Names in the order of the labels 0, 1, ...
        splits: ``train`` and ``validation``, always both; one may have no shards.
        mean_rgb: Mean red, green, blue of the training pixels, 0 to 255.
        rgb_covariance: 3 x 3 covariances of red, green, blue of the training pixels.
        digest: SHA-256 (hex) of all of the above but the directory.
        label_offset: Number by which the records' labels have to be reduced.
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
        """Count the classes."""
        return len(self.class_names)

    @property
    def short_side(self) -> int:
        """Return the short side of every picture, all JPEGs, in pixels; 0: unknown."""
        return int(self.conversion.get("short_side", 0))

    @property
    def left_out(self) -> List[str]:
        """Say what of the pictures' folder the conversion has left out."""
        num_rejects = self.conversion.get("num_rejects", 0)
        lines = list(self.conversion.get("left_out", []))
        if num_rejects:
            lines.insert(0, f"{num_rejects} x unusable picture, see rejects.csv")
        return lines

    def shard_paths(self, split: str) -> List[str]:
        """Return the paths of the shards of ``train`` or ``validation``, in order."""
        shards = self.splits[split].shards
        return [os.path.join(self.directory, shard.file) for shard in shards]

    def content(self) -> Dict[str, Any]:
        """Return what identifies the data, ready for JSON."""
        names = ("class_names", "mean_rgb", "rgb_covariance", "splits")
        values = dataclasses.asdict(self)
        return {name: values[name] for name in names}


def with_digest(dataset: Dataset) -> Dataset:
    """Return the data set with the digest of its content."""
    canonical = json.dumps(dataset.content(), sort_keys=True).encode()
    return dataclasses.replace(dataset, digest=hashlib.sha256(canonical).hexdigest())


def as_tuples(value: Any) -> Any:
    """Return nested lists of numbers, as JSON has them, as nested tuples of floats."""
    is_list = isinstance(value, (list, tuple))
    return tuple(map(as_tuples, value)) if is_list else float(value)
