"""Finds the classes and splits in a tree of folders, from the paths alone.

A tree that can be understood in two ways is refused.  The message says how the folders
were understood, and which options state the intended meaning.
"""

import posixpath
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from alexnet_estimator.console import list_some
from alexnet_estimator.records.dataset import TRAIN, VALIDATION
from alexnet_estimator.records.tree import LeftOut

HOW_TO_SAY = (
    "name the folder of the class folders: --config.convert.train_folder=FOLDER, and "
    "if there is one for validation, --config.convert.validation_folder=FOLDER (paths "
    "below the data path; . is the data path itself)"
)
_KAGGLE_NAME = re.compile(r"(.+)\.\d+\.\w+")
# A folder in a class folder, for pictures with another weight in the training loss.
WEIGHT_FOLDER = re.compile(r"sample_weight=(.*)")

_TEST, _UNLABELLED = "test", "unlabelled"
# A folder is certainly a split if its name ends with one of these words, like
# "seg_train".  If its name only begins like one of them, the folder may be a split
# ("trainA") or a class ("test tube", "valley").
_SPLIT_WORDS = {
    TRAIN: "train training trainset trainingset traindata trainval trn 训练 训练集",
    VALIDATION: "val valid validation validate valset validationset dev eval " "验证 验证集",
    _TEST: "test testing testset testdata tst 测试 测试集",
    _UNLABELLED: "pred predict prediction predictions unlabeled unlabelled unsup",
}
_SPLIT_STARTS = {"train": TRAIN, "val": VALIDATION, "test": _TEST, "pred": _UNLABELLED}
_KIND_OF_WORD = {word: k for k, words in _SPLIT_WORDS.items() for word in words.split()}
# If several folders could be held out, the first of these names is used.
_PREFERRED = ("validation", "val", "valid", "test")
# Names of folders that say nothing about the pictures in them.
_PLAIN_NAMES = frozenset(
    "data image images img imgs jpeg jpegimages jpegs jpg jpgs original originals "
    "photo photos pic pics picture pictures png raw 图片".split()
)
_EMPTY_WORDS = _PLAIN_NAMES | {"dataset", "folder", "set", "split", "part", "samples"}


class Layout(NamedTuple):
    """The classes of the pictures, as they were understood from the paths.

    Attributes:
        train: Class of each training picture, by path.
        held_out: Class of each picture that the layout holds out, by path.
        text: Description of the layout for the user.
        left_out: Folders that are not used.
        class_folders: Folders whose subfolders are the classes.
    """

    train: Dict[str, str]
    held_out: Dict[str, str]
    text: str
    left_out: List[LeftOut]
    class_folders: List[str]


class Ambiguous(Exception):
    """Raised if the paths can be understood in more than one way, or in no way."""


class Folder:
    """A folder that contains pictures, directly or in its subfolders."""

    def __init__(self, path: str = ""):
        self.path = path
        self.pictures: List[str] = []
        self.folders: Dict[str, "Folder"] = {}

    @property
    def title(self) -> str:
        """Return the path as messages show it."""
        return f"{self.path or '.'}/"

    def walk(self) -> Iterator["Folder"]:
        """Yield this folder and all folders below it."""
        # Recursion would fail: paths in a zip file may have thousands of folders.
        stack = [self]
        while stack:
            folder = stack.pop()
            yield folder
            stack.extend(folder.folders.values())

    def all_pictures(self) -> List[str]:
        """Return the paths of all pictures in this folder and below it."""
        return [path for folder in self.walk() for path in folder.pictures]

    def names_below(self) -> Set[str]:
        """Return the names of all folders below this one, in lower case."""
        return {name.lower() for folder in self.walk() for name in folder.folders}

    def kaggle_classes(self) -> Dict[str, List[str]]:
        """Return the pictures of this folder whose names are CLASS.NUMBER, by class."""
        classes: Dict[str, List[str]] = {}
        for path in self.pictures:
            match = _KAGGLE_NAME.fullmatch(posixpath.basename(path))
            if match:
                classes.setdefault(match.group(1), []).append(path)
        return classes

    def has_kaggle_names(self) -> bool:
        """Return whether the classes are in the names of the files, not the folders."""
        return len(self.folders) < 2 and bool(self.kaggle_classes())

    def classes(self) -> Dict[str, List[str]]:
        """Return the pictures by class: by subfolder, or by Kaggle's file names."""
        if self.has_kaggle_names():
            return self.kaggle_classes()
        return {name: folder.all_pictures() for name, folder in self.folders.items()}

    def only_folder(self) -> Optional["Folder"]:
        """Return the subfolder if there is only one, and no class is in a file name."""
        if len(self.folders) != 1 or self.kaggle_classes():
            return None
        return next(iter(self.folders.values()))


def build(paths: Sequence[str], classes: Dict[str, str]) -> Folder:
    """Build the tree of folders for the paths of pictures.

    Args:
        paths: Paths of the pictures, with "/" between folders.
        classes: Classes of some pictures, by path, from a file beside the pictures.
            These pictures are treated as if they were in a folder of that name.
    """
    root = Folder()
    known = {"": root}

    annotated = {posixpath.dirname(path) for path in classes}
    for path in paths:
        place = posixpath.dirname(path)
        if place in annotated:
            place = posixpath.join(posixpath.dirname(place), classes.get(path, ""))
            place = place.rstrip("/")
        elif WEIGHT_FOLDER.fullmatch(posixpath.basename(place)):
            place = posixpath.dirname(place)
        missing = []
        up = place
        while up not in known:
            missing.append(up)
            up = posixpath.dirname(up)
        for new in reversed(missing):
            child = known[new] = Folder(new)
            known[posixpath.dirname(new)].folders[posixpath.basename(new)] = child
        known[place].pictures.append(path)
    return root


def split_of(name: str) -> Tuple[str, bool]:
    """Return the split that the name of a folder indicates.

    Returns:
        Name of the split, empty if there is none; and whether the split is certain.
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    kinds = [_KIND_OF_WORD.get(word, "") for word in words]
    if len(set(kinds) - {""}) > 1:
        return "", False  # "train_val_split"
    while kinds and not kinds[-1] and words[-1] in _EMPTY_WORDS:
        kinds.pop(), words.pop()
    if kinds and kinds[-1]:
        return kinds[-1], True
    for start, kind in _SPLIT_STARTS.items():
        if words and words[0].startswith(start):
            return kind, False
    return "", False


def recognise(root: Folder) -> Layout:
    """Find the classes and splits in a tree of folders.

    Raises:
        Ambiguous: The tree can be understood in more than one way.
    """
    folder = _unwrap(root)
    kinds = {name: split_of(name) for name in folder.folders}
    trains = [name for name, (kind, _) in kinds.items() if kind == TRAIN]
    others = [name for name, (kind, _) in kinds.items() if kind not in (TRAIN, "")]
    is_certain = any(is_certain for _, is_certain in kinds.values())
    if is_certain and others and any(folder.folders[name].classes() for name in trains):
        return _split_layout(folder, kinds)
    _refuse_splits_among_classes(folder, kinds)
    if not folder.has_kaggle_names():
        _check_class_folders(folder)
    return _layout(folder, folder.classes(), None, {}, [])


def _unwrap(folder: Folder) -> Folder:
    """Return the innermost folder around the classes.

    A folder is skipped if it contains nothing but one folder that has classes.
    """
    deeper = folder.only_folder()
    while deeper and deeper.classes():
        folder, deeper = deeper, deeper.only_folder()
    return folder


def _split_layout(folder: Folder, kinds: Dict[str, Tuple[str, bool]]) -> Layout:
    """Return the layout of a folder whose subfolders are splits with class folders."""
    train = _choose_train(folder, kinds)
    inner = _unwrap(train)
    classes = inner.classes()
    _check_class_folders(inner)
    beside = sorted(set(classes) & set(folder.folders))
    if beside:
        raise Ambiguous(
            f"{beside[0]} is a folder in {inner.title} and beside it: {HOW_TO_SAY}"
        )
    held_out, chosen, reasons = _choose_held_out(folder, kinds, set(classes))
    left_out = []
    for name, other in sorted(folder.folders.items()):
        if other not in (train, chosen):
            reason = "is not among the folders of training and validation"
            text = f"{len(other.all_pictures())} pictures: {reasons.get(name, reason)}"
            left_out.append(LeftOut(f"{other.path}/", text, True))
    return _layout(inner, classes, chosen, held_out, left_out)


def _choose_train(folder: Folder, kinds: Dict[str, Tuple[str, bool]]) -> Folder:
    """Return the folder of the training pictures; the name ``train`` is preferred."""
    names = [
        name
        for name, (kind, _) in kinds.items()
        if kind == TRAIN and folder.folders[name].classes()
    ]
    exact = [name for name in names if name.lower() == TRAIN]
    certain = [name for name in names if kinds[name][1]]
    for candidates in (exact, certain, names):
        if len(candidates) == 1:
            return folder.folders[candidates[0]]
    raise Ambiguous(f"{list_some(names)} may all be for training: {HOW_TO_SAY}")


def _choose_held_out(
    folder: Folder, kinds: Dict[str, Tuple[str, bool]], names: Set[str]
) -> Tuple[Dict[str, List[str]], Optional[Folder], Dict[str, str]]:
    """Choose the folder of the pictures for validation.

    Returns:
        Pictures of the folder by class, the folder, and the reasons why other folders
        are left out, by the names of these folders.
    """

    reasons: Dict[str, str] = {}
    labelled: List[Tuple[Tuple[bool, int], str, Dict[str, List[str]]]] = []
    for name, other in sorted(folder.folders.items()):
        kind = kinds[name][0]
        if kind == _UNLABELLED:
            reasons[name] = "pictures to predict, without classes"
        elif kind in (VALIDATION, _TEST):
            classes = _held_out_classes(other, names)
            if classes:
                place = [*_PREFERRED, name.lower()].index(name.lower())
                labelled.append(((kind == _TEST, place), name, classes))
            else:
                reasons[name] = "pictures without class folders"
    if not labelled:
        return {}, None, reasons
    labelled.sort(key=lambda item: item[:2])
    best, name, classes = labelled[0]
    if len(labelled) > 1 and labelled[1][0] == best:
        both = list_some([name, labelled[1][1]])
        raise Ambiguous(f"{both} may both be held out: {HOW_TO_SAY}")
    for _, unused, _ in labelled[1:]:
        reasons[unused] = f"also held out, but {name}/ is used"
    return classes, folder.folders[name], reasons


def _held_out_classes(folder: Folder, names: Set[str]) -> Dict[str, List[str]]:
    """Return the pictures of a held-out folder by class.

    The function looks for the level at which the folders have the names of the training
    classes.  The result is empty if there are no class folders.
    """
    level: Optional[Folder] = folder
    is_plain = True
    while level:
        classes = level.classes()
        if classes and set(classes) <= names:
            return classes
        deeper = level.only_folder()
        if deeper:
            name = posixpath.basename(deeper.path)
            is_plain = is_plain and (name.lower() in _PLAIN_NAMES or split_of(name)[1])
        elif classes or not is_plain:
            # These classes are unknown.  layouts._check_classes will refuse them with
            # a message that lists the classes of training.
            return classes or folder.classes()
        level = deeper
    return {}


def _refuse_splits_among_classes(
    folder: Folder, kinds: Dict[str, Tuple[str, bool]]
) -> None:
    """Refuse class folders that are named like splits.

    A class folder ``train`` without classes in it is accepted, because it may contain
    pictures of trains.
    """
    if len(folder.folders) < 2:
        return
    for name, (kind, is_certain) in sorted(kinds.items()):
        if not is_certain:
            continue
        child = folder.folders[name]
        has_classes = len(child.folders) > 1 or bool(child.kaggle_classes())
        if kind != TRAIN or has_classes:
            siblings = sorted(set(folder.folders) - {name})
            raise Ambiguous(
                f"{name}/ is named like a split of the data, but is beside "
                f"{list_some(siblings)}, as if all were classes: {HOW_TO_SAY}"
            )
    soft = {kind for kind, _ in kinds.values()} - {""}
    if TRAIN in soft and len(soft) > 1:
        raise Ambiguous(
            f"{list_some(sorted(kinds))} may be classes or splits: {HOW_TO_SAY}"
        )


def _check_class_folders(folder: Folder) -> None:
    """Refuse class folders that seem to contain the folders of the real classes."""
    understood = f"class folders would be {list_some(sorted(folder.folders))}"
    siblings = {name.lower() for name in folder.folders}
    # Every class may have its pictures in one subfolder with a name like "images".
    is_plain = all(
        len(below) <= 1 and below <= _PLAIN_NAMES
        for below in (child.names_below() for child in folder.folders.values())
    )
    owners: Dict[str, str] = {}
    for name, child in sorted(folder.folders.items()):
        for inner in sorted(child.names_below()):
            if inner in siblings:
                problem = f"{name}/ contains {inner}/, named like a class folder"
            elif split_of(inner)[1]:
                problem = f"{name}/ contains {inner}/, named like a split"
            elif inner in owners and not is_plain:
                problem = f"{owners[inner]}/ and {name}/ both contain {inner}/"
            else:
                owners[inner] = name
                continue
            raise Ambiguous(f"{understood}, but {problem}: {HOW_TO_SAY}")


def as_said(root: Folder, train: str, validation: str) -> Layout:
    """Return the layout with the folders that the user has named."""
    if not train:
        raise Ambiguous("convert.validation_folder needs convert.train_folder as well")

    def find(name: str, field: str) -> Folder:
        folder = root
        for part in posixpath.normpath(name).split("/"):
            if part not in (".", *folder.folders):
                raise Ambiguous(
                    f"convert.{field} is {name!r}: {folder.title} has no such folder "
                    f"with pictures, only {list_some(sorted(folder.folders))}"
                )
            folder = folder if part == "." else folder.folders[part]
        return folder

    folder = find(train, "train_folder")
    held_out = find(validation, "validation_folder") if validation else Folder()
    taken = set(held_out.all_pictures())
    classes = {
        name: [path for path in paths if path not in taken]
        for name, paths in folder.classes().items()
    }
    return _layout(
        folder, classes, held_out if validation else None, held_out.classes(), []
    )


def _layout(
    folder: Folder,
    classes: Dict[str, List[str]],
    held_out: Optional[Folder],
    held_out_classes: Dict[str, List[str]],
    left_out: List[LeftOut],
) -> Layout:
    """Return the layout with its description for the user."""
    text = f"classes are the folders in {folder.title}"
    if folder.has_kaggle_names():
        text = f"classes in the names of files in {folder.title} (CLASS.NUMBER.jpg)"
    places = [folder.path]
    if held_out:
        text += f"; held out: {held_out.title}"
        places.append(held_out.path)
    train, validation = (
        {path: name for name, paths in each.items() for path in paths}
        for each in (classes, held_out_classes)
    )
    return Layout(train, validation, text, left_out, places)
