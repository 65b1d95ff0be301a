"""Names of checkpoint files and their steps.

This module does not import TensorFlow.
"""

import functools
import glob
import os
import pathlib
import re
import shutil
from typing import List, Optional

from alexnet_estimator.files import naming, write_bytes

PREFIX = "model.ckpt-"
POINTER = "checkpoint"
SAVING = ".saving"
_NAME = re.compile(re.escape(PREFIX) + r"(\d+)$")


def list_checkpoints(model_dir: str) -> List[str]:
    """Return the path prefixes of all checkpoints in a folder, lowest step first."""
    found = pathlib.Path(model_dir).glob(PREFIX + "*.index")
    prefixes = [str(path)[: -len(".index")] for path in found]
    return sorted(filter(_NAME.search, prefixes), key=sort_key)


def step_of(prefix: str) -> Optional[int]:
    """Return the global step in a checkpoint's name; None if the name has no step."""
    match = _NAME.search(prefix)
    return int(match.group(1)) if match else None


def sort_key(prefix: str) -> int:
    """Return the global step in the name of a checkpoint, which must have one."""
    return int(prefix.rpartition("-")[2])


def path_of(model_dir: str, step: int) -> Optional[str]:
    """Return the path prefix of the checkpoint of a step; None if there is none."""
    # Paths are compared, so this one has to be spelt as list_checkpoints spells it.
    prefix = str(pathlib.Path(model_dir, f"{PREFIX}{step}"))
    return prefix if os.path.exists(prefix + ".index") else None


def latest(model_dir: str) -> Optional[str]:
    """Return the path prefix of the checkpoint with the highest step, or None.

    The checkpoint is not read and may be damaged.
    """
    checkpoints = list_checkpoints(model_dir)
    return checkpoints[-1] if checkpoints else None


def describe_latest(model_dir: str) -> str:
    """Return the end of an error message that names the newest checkpoint."""
    newest = latest(model_dir)
    return f"the last checkpoint is {newest}" if newest else "there is no checkpoint"


def files_of(prefix: str) -> List[str]:
    """Return the paths of all files of a checkpoint, in a fixed order."""
    return sorted(glob.glob(glob.escape(prefix) + ".*"))


def data_files(prefix: str) -> List[str]:
    """Return the paths of the files that hold a checkpoint's values."""
    return [path for path in files_of(prefix) if path.startswith(prefix + ".data-")]


def remove_unfinished(model_dir: str) -> None:
    """Remove the files of a process that was killed while it saved a checkpoint."""
    shutil.rmtree(os.path.join(model_dir, SAVING), ignore_errors=True)


def point_at(model_dir: str, name: str) -> None:
    """Write the ``checkpoint`` file atomically, with ``name`` as the newest one."""
    others = [os.path.basename(path) for path in list_checkpoints(model_dir)]
    others = [other for other in others if other != name]
    lines = [f'model_checkpoint_path: "{name}"']
    lines += [f'all_model_checkpoint_paths: "{other}"' for other in [*others, name]]
    write_bytes(os.path.join(model_dir, POINTER), "\n".join([*lines, ""]).encode())


def find_announced(model_dir: str) -> List[str]:
    """Return the checkpoint that the ``checkpoint`` file names as the newest.

    The result is a list with one path prefix, or empty if the file names no checkpoint.
    The checkpoint itself may be missing.
    """
    pointer = pathlib.Path(model_dir, POINTER)
    if not pointer.is_file():
        return []
    pattern = rb'^model_checkpoint_path: "(?:.*/)?(model\.ckpt-\d+)"'
    with naming(str(pointer)):
        match = re.search(pattern, pointer.read_bytes(), re.MULTILINE)
    # Paths are compared, so this one has to be spelt as list_checkpoints spells it.
    return [str(pointer.with_name(match.group(1).decode()))] if match else []


def for_tensorflow(folder: str) -> str:
    """Return a path of a folder that TensorFlow can use literally.

    TensorFlow looks for checkpoints with glob patterns, in which ``[``, ``]``, ``*``,
    ``?`` and a backslash have a special meaning, and it requires names in UTF-8.  A
    folder with another name is accessed by an open file descriptor, whose path is valid
    until this process ends.
    """
    is_plain = not re.search(r"[][*?\\\udc80-\udcff]", os.path.abspath(folder))
    if is_plain or not os.path.isdir(folder):
        return folder
    state = os.stat(folder)
    return f"/proc/self/fd/{_open_folder(folder, state.st_dev, state.st_ino)}"


@functools.lru_cache(maxsize=None)
def _open_folder(folder: str, device: int, inode: int) -> int:
    """Return a file descriptor of a folder.

    The device and the inode are a part of the cache's key: if the folder is deleted and
    created again, the old descriptor must not be used.
    """
    return os.open(folder, os.O_RDONLY)


def prefix_for_tensorflow(prefix: str) -> str:
    """Return a path prefix of a checkpoint that TensorFlow can use literally."""
    folder, name = os.path.split(prefix)
    return os.path.join(for_tensorflow(folder or os.curdir), name)
