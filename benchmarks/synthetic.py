"""Synthetic pictures in any number, and their conversion for configs/tiny.py."""

import io
import os
from typing import List

import numpy as np
from PIL import Image

from benchmarks import harness
from benchmarks.harness import Engine

# The pictures repeat after this number, so that many files are quickly written.  They
# take as long to read and convert as different ones.
NUM_DIFFERENT = 100
SIZE = (120, 90)


def make_pictures(folder: str, num_pictures: int) -> str:
    """Write ``folder/{a,b}/NUMBER.jpg`` and return the folder."""
    pictures = [draw(seed) for seed in range(min(NUM_DIFFERENT, num_pictures))]
    for number in range(num_pictures):
        parent = os.path.join(folder, "ab"[number % 2])
        os.makedirs(parent, exist_ok=True)
        with open(os.path.join(parent, f"{number}.jpg"), "wb") as file:
            file.write(pictures[number % len(pictures)])
    return folder


def convert(engine: Engine, folder: str, num_pictures: int, *flags: str) -> str:
    """Create pictures and convert them; return the folder of the data."""
    pictures = make_pictures(os.path.join(folder, "pictures"), num_pictures)
    output = os.path.join(folder, "data")
    harness.run_job(engine, *convert_command(pictures, output), *flags)
    return output


def convert_command(pictures: str, output: str) -> List[str]:
    """Return the command line of the subcommand ``convert``."""
    return [
        "convert",
        "--config=configs/tiny.py",
        f"--data_path={pictures}",
        f"--output={output}",
    ]


def draw(seed: int) -> bytes:
    """Return a JPEG of blurred noise, which is as hard to encode as a photo."""
    noise = np.random.RandomState(seed).randint(0, 256, [15, 20, 3], np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(SIZE, Image.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()
