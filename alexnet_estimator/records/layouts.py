"""Finds the class of each picture in the folder layouts that are in common use."""

import posixpath
import re
from typing import List, NamedTuple, Tuple

from alexnet_estimator.console import list_some
from alexnet_estimator.errors import DataError
from alexnet_estimator.records.dataset import TRAIN, VALIDATION
from alexnet_estimator.records.folders import (
    HOW_TO_SAY,
    WEIGHT_FOLDER,
    Ambiguous,
    Folder,
    Layout,
    as_said,
    build,
    recognise,
)
from alexnet_estimator.records.tree import LeftOut, Tree, open_tree, parents_of

KNOWN_LAYOUTS = """known layouts, as a folder or a zip:
    CLASS/*.jpg
    train/CLASS/*.jpg and validation/CLASS/*.jpg (or val, valid, test)
    train/CLASS.NUMBER.jpg (Kaggle's cats and dogs)
    PetImages/CLASS/*.jpg (Microsoft's cats and dogs)"""

_WEIGHT = re.compile(r"(?=.*[1-9])\d{1,3}(\.\d{1,9})?")


class Picture(NamedTuple):
    """A picture file whose class is known.

    Attributes:
        path: Path relative to the source, with "/" between folders.
        stamp: Text that changes when the file changes.
        label: Index of the class.
        split: Name of the split, ``train`` or ``validation``.
    """

    path: str
    stamp: str
    label: int
    split: str

    @property
    def weight(self) -> float:
        """Return the weight in the training loss; 1.0 if no folder states another."""
        folder = posixpath.basename(posixpath.dirname(self.path))
        match = WEIGHT_FOLDER.fullmatch(folder)
        return float(match.group(1)) if match else 1.0


class PictureSet(NamedTuple):
    """All pictures of a source, sorted by path.

    Attributes:
        source: Folder or zip file.
        class_names: Names of the classes, in the order of the labels.
        pictures: Pictures that belong to a class.
        has_validation: Whether the layout contains pictures for validation.
        layout: Description of the layout for the user.
        left_out: Files and folders that are not used, with the reasons.
    """

    source: str
    class_names: Tuple[str, ...]
    pictures: Tuple[Picture, ...]
    has_validation: bool
    layout: str
    left_out: Tuple[LeftOut, ...]


def find_pictures(
    source: str, train_folder: str = "", validation_folder: str = ""
) -> PictureSet:
    """List the pictures of a folder or a zip file, with their classes and splits.

    Args:
        source: Folder or zip file; see ``KNOWN_LAYOUTS``.  The layout may be inside of
            another folder.
        train_folder: Folder of the class folders, below the source; empty for automatic
            detection.
        validation_folder: Folder of the held-out class folders; empty if none is given.

    Raises:
        DataError: There are no pictures, or fewer than two classes, or a class has no
            training pictures, or the folders can be understood in more than one way.
    """
    tree = open_tree(source)
    if tree.root != source:
        raise DataError("neither a folder nor a zip file", source)
    if not tree.pictures:
        raise DataError(f"{tree.describe_lack()}; {KNOWN_LAYOUTS}", source)
    _check_weights(tree.folders, source)
    root = build([path for path, _ in tree.pictures], tree.classes)
    try:
        if train_folder or validation_folder:
            layout = as_said(root, train_folder, validation_folder)
        else:
            layout = recognise(root)
        _check_classes(layout, root)
        left_out = [*layout.left_out, *_folders_without_pictures(tree, layout)]
    except Ambiguous as error:
        raise DataError(str(error), source) from error
    names = sorted(set(layout.train.values()))
    labels = {name: label for label, name in enumerate(names)}
    unused = tuple(item.path for item in layout.left_out)
    pictures = []
    for path, stamp in tree.pictures:
        for split, classes in ((TRAIN, layout.train), (VALIDATION, layout.held_out)):
            if path in classes:
                pictures.append(Picture(path, stamp, labels[classes[path]], split))
        is_used = path in layout.train or path in layout.held_out
        if not is_used and not path.startswith(unused):
            left_out.append(LeftOut(path, "picture outside the class folders", True))
    return PictureSet(
        source=source,
        class_names=tuple(names),
        pictures=tuple(sorted(pictures)),
        has_validation=bool(layout.held_out),
        layout=layout.text,
        left_out=(*left_out, *tree.left_out),
    )


def _check_weights(folders: List[str], source: str) -> None:
    for folder in folders:
        stated = WEIGHT_FOLDER.fullmatch(posixpath.basename(folder))
        if stated and not _WEIGHT.fullmatch(stated.group(1)):
            raise DataError(
                f"{folder}/ does not state a weight above 0 and below 1000: rename the "
                "folder, for example to sample_weight=0.5",
                source,
            )


def _check_classes(layout: Layout, root: Folder) -> None:
    names = sorted(set(layout.train.values()))
    if len(names) < 2:
        folders = [folder for folder in root.walk() if folder.pictures]
        folders.sort(key=lambda folder: -len(folder.pictures))
        seen = [f"{len(f.pictures)} in {f.title}" for f in folders[:5]]
        classes = f"one class ({names[0]})" if names else "no classes"
        raise Ambiguous(
            f"{classes}, but two are needed; pictures found: {', '.join(seen)}; "
            f"{KNOWN_LAYOUTS}"
        )
    strange = sorted(set(layout.held_out.values()) - set(names))
    if strange:
        by_lower = {name.lower(): name for name in names}
        pairs = [(name, by_lower.get(name.lower())) for name in strange]
        same = [f"{a} and {b}" for a, b in pairs if b]
        advice = f"; {list_some(same)} differ only in case" if same else ""
        raise Ambiguous(
            f"held-out pictures of classes that training lacks: {list_some(strange)}; "
            f"training has {list_some(names)}{advice}: rename the folders so that both "
            f"sides have the same names, or {HOW_TO_SAY}"
        )


def _folders_without_pictures(tree: Tree, layout: Layout) -> List[LeftOut]:
    """Return the folders beside the class folders that contain no usable picture.

    Raises:
        Ambiguous: None of the pictures in such a folder can be decoded, so that a class
            would be lost.
    """
    used = {*layout.train, *layout.held_out}
    if all(posixpath.dirname(path) in layout.class_folders for path in used):
        return []  # The classes are in the names of the files, not of the folders.
    with_pictures = {up for path, _ in tree.pictures for up in parents_of(path)}
    empty = []
    for folder in tree.folders:
        is_beside = posixpath.dirname(folder) in layout.class_folders
        if not is_beside or folder in with_pictures:
            continue
        for item in tree.left_out:
            if item.is_loss and item.path.startswith(f"{folder}/"):
                raise Ambiguous(
                    f"no picture of the class folder {folder}/ can be used: "
                    f"{item.path}: {item.reason}"
                )
        reason = "folder without a picture, beside the class folders"
        empty.append(LeftOut(f"{folder}/", reason, True))
    return empty
