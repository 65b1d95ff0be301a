"""Which files are checkpoints, and of which step.  No TensorFlow is imported here."""

import functools
import glob
import os
import pathlib
import re
import shutil
from typing import List, Optional

from alexnet_estimator.files import write_bytes

PREFIX = "model.ckpt-"
POINTER = "checkpoint"
SAVING = ".saving"
_NAME = re.compile(re.escape(PREFIX) + r"(\d+)$")


def list_checkpoints(model_dir: str) -> List[str]:
    """Return the path prefixes of all checkpoints in a folder, oldest first."""
    found = pathlib.Path(model_dir).glob(PREFIX + "*.index")
    prefixes = [str(path)[: -len(".index")] for path in found]
    return sorted(filter(_NAME.search, prefixes), key=sort_key)


def step_of(prefix: str) -> Optional[int]:
    """Return the global step in a checkpoint's name, or None."""
    match = _NAME.search(prefix)
    return int(match.group(1)) if match else None


def sort_key(prefix: str) -> int:
    """Return the global step in a checkpoint's name, which has one."""
    return int(prefix.rpartition("-")[2])


def path_of(model_dir: str, step: int) -> Optional[str]:
    """Return the path prefix of the checkpoint of a step, None where there is none."""
    prefix = str(pathlib.Path(model_dir, f"{PREFIX}{step}"))  # As in list_checkpoints.
    return prefix if os.path.exists(prefix + ".index") else None


def latest(model_dir: str) -> Optional[str]:
    """Return the newest checkpoint's path prefix by step, unread, or None."""
    checkpoints = list_checkpoints(model_dir)
    return checkpoints[-1] if checkpoints else None


def files_of(prefix: str) -> List[str]:
    """Return the paths of all files of a checkpoint, in a fixed order."""
    return sorted(glob.glob(glob.escape(prefix) + ".*"))


def data_files(prefix: str) -> List[str]:
    """Return the paths of the files that hold a checkpoint's values."""
    return [path for path in files_of(prefix) if path.startswith(prefix + ".data-")]


def remove_unfinished(model_dir: str) -> None:
    """Remove what a process that was killed while saving has left."""
    shutil.rmtree(os.path.join(model_dir, SAVING), ignore_errors=True)


def point_at(model_dir: str, name: str) -> None:
    """Make the ``checkpoint`` file name this checkpoint the newest, atomically."""
    others = [os.path.basename(path) for path in list_checkpoints(model_dir)]
    others = [other for other in others if other != name]
    lines = [f'model_checkpoint_path: "{name}"']
    lines += [f'all_model_checkpoint_paths: "{other}"' for other in [*others, name]]
    write_bytes(os.path.join(model_dir, POINTER), "\n".join([*lines, ""]).encode())


def find_announced(model_dir: str) -> List[str]:
    """Return the checkpoint of this folder that ``checkpoint`` names, there or not."""
    pointer = pathlib.Path(model_dir, POINTER)
    if not pointer.is_file():
        return []
    pattern = rb'^model_checkpoint_path: "(?:.*/)?(model\.ckpt-\d+)"'
    match = re.search(pattern, pointer.read_bytes(), re.MULTILINE)
    # Spelt as in list_checkpoints.
    return [str(pointer.with_name(match.group(1).decode()))] if match else []


def for_tensorflow(folder: str) -> str:
    """Return a path of a folder that TensorFlow takes as it is.

    TensorFlow looks for checkpoints with glob patterns, in which ``[``, ``]``, ``*``,
    ``?`` and a backslash mean something else, and it wants names to be UTF-8.  Such a
    folder is called by an open descriptor instead, as long as this process lives.
    """
    is_plain = not re.search(r"[][*?\\\udc80-\udcff]", os.path.abspath(folder))
    if is_plain or not os.path.isdir(folder):
        return folder
    state = os.stat(folder)
    return f"/proc/self/fd/{_open_folder(folder, state.st_dev, state.st_ino)}"


@functools.lru_cache(maxsize=None)
def _open_folder(folder: str, device: int, inode: int) -> int:
    """Return a descriptor of a folder; another one if the folder is made anew."""
    return os.open(folder, os.O_RDONLY)


def prefix_for_tensorflow(prefix: str) -> str:
    """Return a checkpoint's path prefix that TensorFlow takes as it is."""
    folder, name = os.path.split(prefix)
    return os.path.join(for_tensorflow(folder or os.curdir), name)
