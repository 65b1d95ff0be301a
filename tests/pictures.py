"""Small pictures whose classes a model can distinguish, as files and converted."""

import os
import zipfile
from typing import Any, Sequence, Tuple

import numpy as np
from PIL import Image

from alexnet_estimator.config import Config, config_from
from alexnet_estimator.records import convert
from alexnet_estimator.records.dataset import Dataset

COLOURS = ((200, 60, 60), (60, 60, 200), (60, 180, 60), (190, 180, 50))


def draw(label: int, seed: int, size: Tuple[int, int] = (48, 40)) -> Image.Image:
    """Draw a picture: the label decides the colour, the seed noise and brightness.

    Args:
        label: Label from 0; colours repeat after four.
        seed: Seed of the picture.
        size: Width and height in pixels.
    """
    noise = np.random.RandomState(1000 * label + seed)
    colour = np.array(COLOURS[label % len(COLOURS)]) + noise.randint(-20, 20)
    pixels = colour + noise.randint(-25, 25, size=[size[1], size[0], 3])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_folder(
    folder: Any,
    class_names: Sequence[str] = ("cat", "dog"),
    num_per_class: int = 10,
    size: Tuple[int, int] = (48, 40),
    suffix: str = ".jpg",
) -> str:
    """Write pictures as ``folder/CLASS/NUMBER.jpg`` and return the folder."""
    for label, name in enumerate(class_names):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        for seed in range(num_per_class):
            path = os.path.join(folder, name, f"{seed}{suffix}")
            draw(label, seed, size).save(path)
    return str(folder)


def save(path: Any, label: int = 0, seed: int = 0) -> None:
    """Write one picture, and create its folders; the suffix decides the format."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draw(label, seed).save(path)


def make_zip(folder: str, path: Any) -> str:
    """Put all files of a folder into a zip and return its path."""
    with zipfile.ZipFile(path, "w") as archive:
        for parent, _, names in os.walk(folder):
            for name in names:
                file = os.path.join(parent, name)
                archive.write(file, os.path.relpath(file, folder))
    return str(path)


def settings(**changes: Any) -> Config:
    """Return the section ``convert`` of a configuration, for small pictures."""
    return config_from(
        {"convert": {"short_side": 32, "num_workers": 1, **changes}}
    ).convert


def make_dataset(
    folder: Any,
    class_names: Sequence[str] = ("cat", "dog"),
    num_per_class: int = 10,
    **changes: Any,
) -> Dataset:
    """Draw and convert pictures; ``changes`` are fields of ``config.convert``."""
    source = make_folder(os.path.join(folder, "pictures"), class_names, num_per_class)
    output = os.path.join(folder, "records")
    return convert.convert(source, output, settings(**changes), show_progress=False)
