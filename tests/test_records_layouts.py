"""Every known layout is recognised; everything else is refused with what was seen."""

import os
import pathlib
import zipfile
from typing import Any, Dict, List

import pytest

from alexnet_estimator.errors import DataError
from alexnet_estimator.records import layouts
from tests import pictures

TWO = ["cat/1.jpg", "cat/2.JPG", "dog/1.png"]


def touch(root: pathlib.Path, paths: List[str]) -> str:
    """Make files that are listed only, never decoded."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return str(root)


def found(source: str) -> Dict[str, str]:
    """Return ``split:class`` by path."""
    result = layouts.find_pictures(source)
    return {
        picture.path: f"{picture.split}:{result.class_names[picture.label]}"
        for picture in result.pictures
    }


CLASSES = {"cat/1.jpg": "train:cat", "cat/2.JPG": "train:cat", "dog/1.png": "train:dog"}
LAYOUTS = {
    "classes": (TWO, CLASSES),
    "one folder around": (
        [f"a/b/{path}" for path in TWO],
        {f"a/b/{path}": value for path, value in CLASSES.items()},
    ),
    "folders in classes": (
        ["cat/x/1.jpg", "cat/y/1.jpg", "dog/x/1.jpg"],
        {
            "cat/x/1.jpg": "train:cat",
            "cat/y/1.jpg": "train:cat",
            "dog/x/1.jpg": "train:dog",
        },
    ),
    "microsoft": (
        [
            "readme[1].txt",
            "PetImages/Cat/0.jpg",
            "PetImages/Cat/Thumbs.db",
            "PetImages/Dog/0.jpg",
        ],
        {"PetImages/Cat/0.jpg": "train:Cat", "PetImages/Dog/0.jpg": "train:Dog"},
    ),
    "kaggle": (
        ["train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg", "sample.csv"],
        {"train/cat.0.jpg": "train:cat", "train/dog.0.jpg": "train:dog"},
    ),
    "kaggle's other one": (
        ["train/cat.0.jpg", "train/dog.0.jpg", "test/1.jpg"],
        {"train/cat.0.jpg": "train:cat", "train/dog.0.jpg": "train:dog"},
    ),
    "kaggle's training folder": (
        ["cat.0.jpg", "dog.0.jpg"],
        {"cat.0.jpg": "train:cat", "dog.0.jpg": "train:dog"},
    ),
    "hidden files": (
        [*TWO, ".cache/x/1.jpg", "cat/._1.jpg", "__MACOSX/cat/1.jpg"],
        CLASSES,
    ),
    "a class called train": (
        ["train/1.jpg", "bus/1.jpg"],
        {"train/1.jpg": "train:train", "bus/1.jpg": "train:bus"},
    ),
    "unicode": (
        ["猫/写真 1.jpg", "Hündin/é.jpg"],
        {"猫/写真 1.jpg": "train:猫", "Hündin/é.jpg": "train:Hündin"},
    ),
}


@pytest.mark.parametrize("paths, expected", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("is_zip", [False, True], ids=["folder", "zip"])
def test_layouts(
    tmp_path: pathlib.Path, paths: List[str], expected: Dict[str, str], is_zip: bool
) -> None:
    source = touch(tmp_path / "source", paths)
    if is_zip:
        source = pictures.make_zip(source, tmp_path / "source.zip")
    assert found(source) == expected
    assert not layouts.find_pictures(source).has_validation


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation", "Val"])
def test_layouts_with_their_own_validation(tmp_path: pathlib.Path, name: str) -> None:
    touch(tmp_path, ["Train/cat/1.jpg", "Train/dog/1.jpg", f"{name}/dog/2.jpg"])
    assert found(str(tmp_path)) == {
        "Train/cat/1.jpg": "train:cat",
        "Train/dog/1.jpg": "train:dog",
        f"{name}/dog/2.jpg": "validation:dog",
    }
    assert layouts.find_pictures(str(tmp_path)).has_validation


def test_validation_is_preferred_to_test_and_the_rest_is_counted(
    tmp_path: pathlib.Path,
) -> None:
    touch(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg"])
    touch(tmp_path, ["test/a/3.jpg", "test/b/3.jpg", "cover.jpg"])
    result = layouts.find_pictures(str(tmp_path))
    assert [picture.path for picture in result.pictures] == [
        "train/a/1.jpg",
        "train/b/1.jpg",
        "val/a/2.jpg",
    ]
    assert result.num_ignored == 3


def test_order_is_that_of_the_names(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = touch(tmp_path, ["b/2.jpg", "a/2.jpg", "b/1.jpg", "a/1.jpg"])
    walk = os.walk

    def walk_backwards(*args: Any, **options: Any) -> Any:
        for folder, subfolders, names in walk(*args, **options):
            subfolders.sort(reverse=True)
            yield folder, subfolders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", walk_backwards)
    result = layouts.find_pictures(source)
    assert [p.path for p in result.pictures] == sorted(p.path for p in result.pictures)
    assert result.class_names == ("a", "b")


@pytest.mark.parametrize(
    "paths, message",
    [
        ([], "no pictures; files seen: none"),
        (["a.txt", "b.txt", "train.zip"], "files seen: 2 .txt, 1 .zip"),
        (["cat/1.jpg"], "no classes.*1 in cat/"),
        (["cat.1.jpg", "cat.2.jpg"], r"one class \(cat\)"),
        (["1.jpg", "2.jpg"], "no classes.*2 in ./"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"],
            "classes that training lacks: c",
        ),
    ],
)
def test_what_is_no_data_is_refused(
    tmp_path: pathlib.Path, paths: List[str], message: str
) -> None:
    source = touch(tmp_path / "source", paths)
    os.makedirs(source, exist_ok=True)
    with pytest.raises(DataError, match=message) as error:
        layouts.find_pictures(source)
    assert source in str(error.value)
    if "lacks" not in message:
        assert "PetImages" in str(error.value)


def test_places_without_data_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        layouts.find_pictures(str(tmp_path / "nowhere"))
    file = tmp_path / "file.jpg"
    file.write_bytes(b"x")
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        layouts.find_pictures(str(file))
    broken = tmp_path / "broken.zip"
    whole = pathlib.Path(pictures.make_zip(touch(tmp_path / "x", TWO), broken))
    content = bytearray(whole.read_bytes())
    content[content.index(b"PK\1\2") + 2] = 0  # The first entry of the directory.
    broken.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a zip"):
        layouts.find_pictures(str(broken))


def test_unreadable_folders_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = touch(tmp_path, TWO)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot list .*dog: Permission denied"):
        layouts.find_pictures(source)


def test_links_are_followed_only_inside_the_source(tmp_path: pathlib.Path) -> None:
    touch(tmp_path / "outside", ["secret.jpg", "bird/1.jpg"])
    source = touch(tmp_path / "source", TWO)
    links = {
        "cat/in.jpg": "../dog/1.png",
        "cat/out.jpg": "../../outside/secret.jpg",
        "cat/lost.jpg": "nowhere.jpg",
        "bird": "../outside/bird",
        "loop": ".",
    }
    for link, target in links.items():
        os.symlink(target, os.path.join(source, link))
    assert found(source) == {**CLASSES, "cat/in.jpg": "train:cat"}
    assert layouts.find_pictures(source).num_ignored == 4


def test_a_link_to_the_source_is_fine(tmp_path: pathlib.Path) -> None:
    os.symlink(touch(tmp_path / "source", TWO), str(tmp_path / "link"))
    assert found(str(tmp_path / "link")) == CLASSES


def test_zip_members_that_lead_elsewhere_are_left_out(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "source.zip"
    with zipfile.ZipFile(str(path), "w") as archive:
        for name in [*TWO, "../dog/evil.jpg", "/dog/evil.jpg", "dog/../../e.jpg"]:
            archive.writestr(name, b"x")
    assert found(str(path)) == CLASSES


def test_reader_reads_folder_and_zip_alike(tmp_path: pathlib.Path) -> None:
    folder = pictures.make_folder(tmp_path / "folder", num_per_class=1)
    archive = pictures.make_zip(folder, tmp_path / "folder.zip")
    data = layouts.PictureReader(folder).read("cat/0.jpg")
    assert data.startswith(b"\xff\xd8")
    assert layouts.PictureReader(archive).read("cat/0.jpg") == data


def test_reader_refuses_huge_files(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "_MAX_PICTURE_BYTES", 1000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(1000))
        archive.writestr("b.jpg", bytes(1001))
    reader = layouts.PictureReader(str(path))
    assert len(reader.read("a.jpg")) == 1000
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        reader.read("b.jpg")


def test_stamps_change_with_the_file(tmp_path: pathlib.Path) -> None:
    source = touch(tmp_path, TWO)
    before = layouts.find_pictures(source)
    assert layouts.find_pictures(source) == before
    os.utime(str(tmp_path / "dog/1.png"), (1, 1))
    assert layouts.find_pictures(source) != before
