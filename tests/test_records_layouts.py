"""Every known layout is recognised, and an ambiguous one is refused."""

import os
import pathlib
import tempfile
from typing import Any, Dict, List, NamedTuple

import hypothesis
import hypothesis.strategies as st
import pytest

from alexnet_estimator.errors import DataError
from alexnet_estimator.records import layouts
from tests import pictures

TWO = ["cat/1.jpg", "cat/2.JPG", "dog/1.png"]
JPEG, HEIC = b"\xff\xd8\xff\xe0", b"\0\0\0\x18ftypheic"


def touch(root: pathlib.Path, paths: List[str], content: bytes = JPEG) -> str:
    """Create files that are only listed and never decoded."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return str(root)


def found(source: str, *said: str) -> Dict[str, str]:
    """Return ``split:class`` by path."""
    result = layouts.find_pictures(source, *said)
    return {
        picture.path: f"{picture.split}:{result.class_names[picture.label]}"
        for picture in result.pictures
    }


def left_out(source: str) -> Dict[str, str]:
    return {item.path: item.reason for item in layouts.find_pictures(source).left_out}


def by_folder(*paths: str, at: int = -2, split: str = "train") -> Dict[str, str]:
    """Return the class of each path, which is the name of one of its folders."""
    return {path: f"{split}:{path.split('/')[at]}" for path in paths}


CLASSES = by_folder(*TWO)
KAGGLE = {"train/cat.0.jpg": "train:cat", "train/dog.0.jpg": "train:dog"}
PETS = by_folder("PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg")
SPLIT = by_folder("train/a/1.jpg", "train/b/1.jpg")
SYSTEM_FILES = """@eaDir/1.jpg/T.jpg
cat/@eaDir/1.jpg/T.jpg
#recycle/x/1.jpg
$RECYCLE.BIN/1.jpg
lost+found/1.jpg
__MACOSX/cat/1.jpg
System Volume Information/1.jpg
cat/._1.jpg
.cache/x/1.jpg
dog/.ipynb_checkpoints/1.jpg
Thumbs.db""".splitlines()

# Files beside the pictures, and the pictures with their classes.
LAYOUTS: Dict[str, Any] = {
    "classes": ([], CLASSES),
    "one folder around": ([], by_folder(*(f"a/b/{path}" for path in TWO))),
    "folders in classes": (
        [],
        by_folder("cat/x/1.jpg", "cat/y/1.jpg", "dog/z/1.jpg", at=0),
    ),
    "images in classes": ([], by_folder("a/images/1.jpg", "b/images/1.jpg", at=0)),
    "microsoft": (["readme[1].txt", "PetImages/Cat/Thumbs.db"], PETS),
    "kaggle": (["test1/1.jpg", "sample.csv"], KAGGLE),
    "kaggle's other one": (["test/1.jpg"], KAGGLE),
    "kaggle's training folder": (
        [],
        {"cat.0.jpg": "train:cat", "dog.0.jpg": "train:dog"},
    ),
    "system files": (SYSTEM_FILES, CLASSES),
    "a class called train": ([], by_folder("train/1.jpg", "bus/1.jpg")),
    "begin like splits": ([], by_folder("valley/1.jpg", "test tube/1.jpg")),
    "unicode": ([], by_folder("猫/写真 1.jpg", "Hündin/é.jpg")),
    "pictures to predict": (["seg_pred/seg_pred/1.jpg"], SPLIT),
    "unlabelled, in a folder": (["test/images/1.jpg"], SPLIT),
    "a copy of itself": (["chest/train/a/1.jpg", "test/1.jpg"], SPLIT),
}


@pytest.mark.parametrize("beside, expected", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("is_zip", [False, True], ids=["folder", "zip"])
def test_layouts(
    tmp_path: pathlib.Path, beside: List[str], expected: Dict[str, str], is_zip: bool
) -> None:
    source = touch(tmp_path / "source", [*beside, *expected])
    if is_zip:
        source = pictures.make_zip(source, tmp_path / "source.zip")
    assert found(source) == expected
    assert not layouts.find_pictures(source).has_validation
    # Every unused file is reported, itself or as part of a folder.
    said = tuple(left_out(source))
    assert all(path.startswith(said) for path in beside)


@pytest.mark.parametrize(
    "train, held_out",
    [
        ("Train", "test"),
        ("train", "Val"),
        ("train", "valid"),
        ("train", "validation"),
        ("Training", "Testing"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("data/training_set/training_set", "data/test_set/test_set"),
        ("TRAIN SET", "Validation_Set"),
        ("train2017", "val2017"),
        ("asl_train/images", "asl_test"),
        ("训练集", "测试集"),
    ],
)
def test_layouts_with_their_own_validation(
    tmp_path: pathlib.Path, train: str, held_out: str
) -> None:
    expected = {
        **by_folder(f"{train}/cat/1.jpg", f"{train}/dog/1.jpg"),
        **by_folder(f"{held_out}/dog/2.jpg", split="validation"),
    }
    assert found(touch(tmp_path, list(expected))) == expected
    assert layouts.find_pictures(str(tmp_path)).has_validation


def test_validation_is_preferred_to_test_and_the_rest_is_said(
    tmp_path: pathlib.Path,
) -> None:
    held_out = by_folder("val/a/2.jpg", split="validation")
    touch(tmp_path, [*SPLIT, *held_out, "test/a/3.jpg", "test/b/3.jpg", "cover.jpg"])
    assert found(str(tmp_path)) == {**SPLIT, **held_out}
    assert left_out(str(tmp_path)) == {
        "test/": "2 pictures: also held out, but val/ is used",
        "cover.jpg": "picture outside the class folders",
    }


def test_tiny_imagenet(tmp_path: pathlib.Path) -> None:
    train = by_folder("train/n1/images/1.JPEG", "train/n2/images/1.JPEG", at=1)
    touch(tmp_path, [*train, "val/images/0.JPEG", "val/images/1.JPEG"])
    touch(tmp_path, ["test/images/0.JPEG"])
    lines = "0.JPEG\tn2\t0\t0\t9\t9\nevil.JPEG\t../../n1\n"
    (tmp_path / "val" / "val_annotations.txt").write_text(lines)
    held_out = {"val/images/0.JPEG": "validation:n2"}
    assert found(str(tmp_path)) == {**train, **held_out}
    said = left_out(str(tmp_path))
    assert said["val/images/1.JPEG"] == "picture outside the class folders"
    assert said["test/"] == "1 pictures: pictures without class folders"


# Paths, the text of the message, and options that resolve the ambiguity, with the
# resulting classes.
REFUSED: Dict[str, Any] = {
    "doubled": (
        ["daisy/1.jpg", "rose/1.jpg", "flowers/daisy/1.jpg", "flowers/rose/1.jpg"],
        r"daisy, flowers, rose, but flowers/ contains daisy/, named like a class",
        ("flowers",),
        by_folder("flowers/daisy/1.jpg", "flowers/rose/1.jpg"),
    ),
    "parts of unknown names": (
        ["fold1/a/1.jpg", "fold1/b/1.jpg", "fold2/a/2.jpg", "fold2/b/2.jpg"],
        "fold1/ and fold2/ both contain a/",
        ("fold1", "fold2"),
        {
            **by_folder("fold1/a/1.jpg", "fold1/b/1.jpg"),
            **by_folder("fold2/a/2.jpg", "fold2/b/2.jpg", split="validation"),
        },
    ),
    "parts in classes": (
        ["a/train/1.jpg", "a/test/1.jpg", "b/train/1.jpg", "b/test/1.jpg"],
        "a/ contains test/, named like a split",
        (".",),
        by_folder(
            *["a/train/1.jpg", "a/test/1.jpg", "b/train/1.jpg", "b/test/1.jpg"], at=0
        ),
    ),
    "a part beside classes": (
        ["a/1.jpg", "b/1.jpg", "test/a/2.jpg", "test/b/2.jpg"],
        "test/ is named like a split of the data, but is beside a, b",
        (".", "test"),
        {
            **by_folder("a/1.jpg", "b/1.jpg"),
            **by_folder("test/a/2.jpg", "test/b/2.jpg", split="validation"),
        },
    ),
    "unlabelled beside classes": (
        ["a/1.jpg", "b/1.jpg", "test/2.jpg"],
        "test/ is named like a split",
        (".",),
        by_folder("a/1.jpg", "b/1.jpg", "test/2.jpg"),
    ),
    "a part beside something": (
        ["train/a/1.jpg", "train/b/1.jpg", "more/3.jpg"],
        "train/ is named like a split of the data, but is beside more",
        ("train/",),
        SPLIT,
    ),
    "two parts to train": (
        ["train_1/a/1.jpg", "train_2/b/1.jpg", "val/a/2.jpg"],
        "train_1, train_2 may all be for training",
        (),
        {},
    ),
    "cycle": (
        ["trainA/1.jpg", "trainB/1.jpg", "testA/1.jpg", "testB/1.jpg"],
        "testA, testB, trainA, trainB may be classes or splits",
        (".",),
        by_folder("trainA/1.jpg", "trainB/1.jpg", "testA/1.jpg", "testB/1.jpg"),
    ),
    "other case": (
        ["train/Cat/1.jpg", "train/Dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"],
        "that training lacks: cat, dog; training has Cat, Dog; cat and Cat, dog and "
        "Dog differ only in case: rename",
        ("train",),
        by_folder("train/Cat/1.jpg", "train/Dog/1.jpg"),
    ),
    "other classes": (
        ["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"],
        "classes that training lacks: c; training has a, b: rename",
        (),
        {},
    ),
    "no such folder": (
        ["a/1.jpg", "b/1.jpg"],
        "",
        ("c/a",),
        "train_folder is 'c/a': ./ has no such folder with pictures, only a, b",
    ),
    "only to validate": (["a/1.jpg", "b/1.jpg"], "", ("", "a"), "needs .*train_folder"),
}


@pytest.mark.parametrize(
    "paths, message, said, expected", REFUSED.values(), ids=REFUSED
)
def test_what_is_ambiguous_is_refused_and_can_be_said(
    tmp_path: pathlib.Path, paths: List[str], message: str, said: Any, expected: Any
) -> None:
    source = touch(tmp_path / "source", paths)
    if message:
        with pytest.raises(DataError, match=message) as error:
            layouts.find_pictures(source)
        assert "--config.convert.train_folder=FOLDER" in str(error.value)
        assert source in str(error.value)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            layouts.find_pictures(source, *said)
    elif said:
        assert found(source, *said) == expected


@pytest.mark.parametrize(
    "paths, message",
    [
        ([], "no pictures; files found: none"),
        (
            ["a.txt", "b.txt", "train.zip"],
            r"2 x not a picture: .txt.*1 x archive inside",
        ),
        (["cat/1.jpg"], r"one class \(cat\).*1 in cat/"),
        (["cat.1.jpg", "cat.2.jpg"], r"one class \(cat\)"),
        (["1.jpg", "2.jpg"], "no classes.*2 in ./"),
    ],
)
def test_what_is_no_data_is_refused(
    tmp_path: pathlib.Path, paths: List[str], message: str
) -> None:
    source = touch(tmp_path / "source", paths)
    os.makedirs(source, exist_ok=True)
    with pytest.raises(DataError, match=message) as error:
        layouts.find_pictures(source)
    assert source in str(error.value) and "PetImages" in str(error.value)


def test_places_without_data_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        layouts.find_pictures(str(tmp_path / "nowhere"))
    touch(tmp_path, ["file.jpg"])
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        layouts.find_pictures(str(tmp_path / "file.jpg"))


def test_a_folder_that_contributes_nothing_is_said_loudly(
    tmp_path: pathlib.Path,
) -> None:
    source = touch(tmp_path, [*TWO, "docs/a.txt"])
    (tmp_path / "empty").mkdir()
    items = layouts.find_pictures(source).left_out
    assert {"docs/", "empty/"} == {item.path for item in items if item.is_loss}
    touch(tmp_path, ["bird/1.heic"], HEIC)
    with pytest.raises(DataError, match="class folder bird/ can be used: .*HEIC.*JPEG"):
        layouts.find_pictures(source)


def test_stamps_change_with_the_file(tmp_path: pathlib.Path) -> None:
    source = touch(tmp_path, TWO)
    before = layouts.find_pictures(source)
    assert layouts.find_pictures(source) == before
    os.utime(str(tmp_path / "dog/1.png"), (1, 1))
    assert layouts.find_pictures(source) != before


# Synthetic trees, whose generator knows the true classes.


class Made(NamedTuple):
    """A synthetic tree.

    Attributes:
        truth: ``split:class`` of the pictures, by path.
        noise: Content of other files, by path.
        links: Targets, relative to the folder around the source, by path.
        is_plain: Whether the tree can be understood in one way only.
    """

    truth: Dict[str, str]
    noise: Dict[str, bytes]
    links: Dict[str, str]
    is_plain: bool


CLASS_NAMES = ["cat", "Dog", "猫", "n01", "train", "valley", "a b", "images", "run.x"]
FILES = ["1.jpg", "2.JPEG", "3", "4.jfif", "x y.png", "5.a.jpg"]
SPLITS = [("train", "test"), ("Training", "Testing"), ("seg_train", "seg_val")]
UNSURE_SPLITS = [("fold1", "fold2"), ("trainA", "testA"), ("", "copy"), ("", "test")]
HINTS = ["images", "2019", "cat", "test", "x"]


@st.composite
def trees(draw: Any) -> Made:
    """Draw a tree of folders such as people, cameras and NAS devices create."""
    names = draw(st.lists(st.sampled_from(CLASS_NAMES), min_size=2, unique=True))
    around = draw(st.sampled_from(["", "data/", "a/b/"]))
    is_plain = not {"train", "images", "valley"} & set(names)
    kind = draw(st.sampled_from(["classes", "splits", "doubled splits", "unsure"]))
    splits = {"classes": [("", "")], "unsure": UNSURE_SPLITS}.get(kind, SPLITS)
    train, test = draw(st.sampled_from(splits))
    if kind == "doubled splits":
        train, test = f"{train}/{train}", f"{test}/{test}"
    is_plain = is_plain and kind != "unsure"
    truth: Dict[str, str] = {}
    for name in names:
        for folder, split in ((train, "train"), (test, "validation")):
            inner = draw(st.sampled_from(["", "", "", *HINTS]))
            is_plain = is_plain and not inner
            place = "/".join(part for part in (folder, name, inner) if part)
            if folder or split == "train":
                for file in draw(st.sets(st.sampled_from(FILES), min_size=1)):
                    truth[f"{around}{place}/{file}"] = f"{split}:{name}"
    everywhere = sorted({"", *(os.path.dirname(path) + "/" for path in truth)})
    noise: Dict[str, bytes] = {}
    links: Dict[str, str] = {}
    for folder in draw(st.lists(st.sampled_from(everywhere), max_size=3)):
        file = draw(st.sampled_from(SYSTEM_FILES + ["run/config.json", "notes.md"]))
        noise[folder + file] = JPEG
        if file == "run/config.json":
            noise[folder + file] = b'{"config": {}, "data_digest": ""}'
            noise[folder + "run/report/curve.png"] = JPEG
    for path in draw(st.lists(st.sampled_from(sorted(truth)), max_size=2)):
        links[path] = f"pool/{len(links)}"  # The picture itself is in another folder.
    if draw(st.booleans()):
        links[draw(st.sampled_from(everywhere)) + "loop"] = "source"
    return Made(truth, noise, links, is_plain)


@hypothesis.given(trees())
@hypothesis.settings(max_examples=100, deadline=None)
def test_no_made_up_tree_gives_a_wrong_class(made: Made) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, pool = pathlib.Path(folder, "source"), pathlib.Path(folder, "pool")
        pool.mkdir()
        touch(source, [path for path in made.truth if path not in made.links])
        for path, content in made.noise.items():
            touch(source, [path], content)
        for path, target in made.links.items():
            if target != "source":
                touch(pathlib.Path(folder), [target])
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).symlink_to(pathlib.Path(folder, target))
        try:
            understood = found(str(source))
        except DataError:
            assert not made.is_plain
            return
    assert understood == made.truth
