"""Files of folders and zips are listed by content, and unused files are reported."""

import json
import os
import pathlib
import struct
import zipfile
from typing import Any, Dict, List, Tuple

import pytest

from alexnet_estimator.errors import DataError
from alexnet_estimator.records import convert, kinds, tree
from tests import pictures
from tests.test_records_layouts import HEIC, JPEG, TWO, touch


def listed(source: Any) -> List[str]:
    return [path for path, _ in tree.open_tree(str(source)).pictures]


def left_out(source: Any) -> Dict[str, Tuple[str, bool]]:
    items = tree.open_tree(str(source)).left_out
    return {item.path: (item.reason, item.is_loss) for item in items}


CONTENTS = {
    "a.jfif": JPEG,
    "a.JPG": b"whatever it is, it is opened and then judged",
    "no suffix": JPEG,
    "photo.2024": b"\x89PNG\r\n\x1a\n",
    "a.gif89": b"GIF89a",
    "a.dib": b"BM\x99\0\0\0\0\0\0\0\x36\0\0\0",
    "a.web": b"RIFF\x99\0\0\0WEBPVP8 ",
    "a.scan": b"II*\0\x08\0\0\0",
}
NO_PICTURES = {
    "a.heic": (HEIC, "HEIC picture"),
    "a.AVIF": (b"\0\0\0\x1cftypavif", "AVIF picture"),
    "a.jp2": (b"\0\0\0\x0cjP  \r\n", "JPEG 2000 picture"),
    "a.NEF": (b"MM\0*\0\0\0\x08", "camera raw picture"),
    "a.zip": (b"PK\3\4", "archive inside the data: unpack it"),
    "a.txt": (JPEG, "not a picture: .txt"),
    "b": (b"BM is how this text begins", "not a picture: no suffix"),
    "c.mpg": (b"\0\0\0\x18ftypmp42", "not a picture: .mpg"),
}


@pytest.mark.parametrize("is_zip", [False, True], ids=["folder", "zip"])
def test_pictures_are_known_by_their_first_bytes(
    tmp_path: pathlib.Path, is_zip: bool
) -> None:
    source = str(tmp_path / "source")
    for name, content in CONTENTS.items():
        touch(tmp_path / "source", [name], content)
    for name, (content, _) in NO_PICTURES.items():
        touch(tmp_path / "source", [name], content)
    if is_zip:
        source = pictures.make_zip(source, tmp_path / "source.zip")
    assert set(listed(source)) == set(CONTENTS)
    said = left_out(source)
    assert set(said) == set(NO_PICTURES)
    for name, (_, reason) in NO_PICTURES.items():
        assert said[name][0].startswith(reason)
        assert said[name][1] == (not reason.startswith("not a picture"))
    assert "mogrify" in said["a.heic"][0]


def test_only_unknown_suffixes_are_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = touch(tmp_path, [*TWO, "a.txt", "cat/3"])
    read = []
    head = tree.PictureReader.read_head

    def note_path(self: Any, path: str, *sizes: int) -> bytes:
        read.append((path, *sizes))
        return head(self, path, *sizes)

    monkeypatch.setattr(tree.PictureReader, "read_head", note_path)
    assert listed(source) == [*TWO[:2], "cat/3", TWO[2]]
    assert read == [("cat/3", kinds.HEAD_BYTES)]


def test_links_are_followed_and_loops_found(tmp_path: pathlib.Path) -> None:
    touch(tmp_path / "pool", ["bird/1.jpg", "one.jpg", "bird/deep/2.jpg"])
    source = touch(tmp_path / "source", [*TWO, ".git/annex/9.jpg"])
    links = {
        "bird": "../pool/bird",
        "cat/one.jpg": "../../pool/one.jpg",
        "cat/annexed.jpg": "../.git/annex/9.jpg",
        "cat/lost.jpg": "nowhere.jpg",
        "dog/same.jpg": "../cat/1.jpg",
        "dog/twice.jpg": "../../pool/one.jpg",
        "again": "../pool/bird/deep",
        "loop": ".",
        "up": "..",
        "self": "self",
    }
    for link, target in links.items():
        os.symlink(target, os.path.join(source, link))
    os.symlink(source, str(tmp_path / "pool" / "bird" / "back"))
    both = {path for path in listed(source) if "2.jpg" in path}
    # The same folder is listed once, whichever link to it comes first.
    assert both in ({"bird/deep/2.jpg"}, {"again/2.jpg"})
    ones = {path for path in listed(source) if path in ("cat/one.jpg", "dog/twice.jpg")}
    assert len(ones) == 1
    expected = {*TWO, "bird/1.jpg", "cat/annexed.jpg", *both, *ones}
    assert set(listed(source)) == expected
    said = left_out(source)
    assert said["cat/lost.jpg"] == said["self"] == ("link to a missing file", True)
    assert said["dog/same.jpg"] == ("link to something that is listed anyway", False)
    assert said["up"] == said["loop"] == ("link to a folder that contains it", False)
    assert len([path for path, (text, _) in said.items() if "the same as" in text]) == 2
    assert said["bird/back"][0] == "link to a folder that contains it"


def test_pipes_are_left_out(tmp_path: pathlib.Path) -> None:
    os.mkfifo(str(tmp_path / "pipe.jpg"))
    assert left_out(tmp_path) == {"pipe.jpg": ("neither file nor folder", False)}


def test_a_link_to_the_source_and_a_single_file(tmp_path: pathlib.Path) -> None:
    os.symlink(touch(tmp_path / "source", TWO), str(tmp_path / "link"))
    assert listed(tmp_path / "link") == TWO
    single = tree.open_tree(str(tmp_path / "source" / "cat" / "1.jpg"))
    assert [path for path, _ in single.pictures] == ["1.jpg"]
    assert tree.PictureReader(single.root).read("1.jpg") == JPEG


def test_unreadable_folders_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, scandir = touch(tmp_path, TWO), os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot list .*dog: Permission denied"):
        tree.open_tree(source)


def test_runs_and_converted_data_are_never_classes(tmp_path: pathlib.Path) -> None:
    source = pictures.make_folder(tmp_path / "source", num_per_class=4)
    run = tmp_path / "source" / "run"
    touch(run, ["report/curves.png", "eval/x.jpg"])
    (run / "config.json").write_text(json.dumps({"config": {}, "data_digest": "1"}))
    settings = pictures.settings()
    convert.convert(source, f"{run}.data/source-1", settings, show_progress=False)
    touch(tmp_path / "source" / "run.data", ["elpv_mono_poly/mono/1.png"])
    touch(tmp_path / "source" / "half" / ".convert-0123", ["train-0"])
    touch(tmp_path / "source" / "other", ["config.json"], b'{"model_type": "bert"}')
    assert {path.split("/")[0] for path in listed(source)} == {"cat", "dog"}
    assert {name: text for name, (text, _) in left_out(source).items()} == {
        "run/": "a run of this program",
        "run.data/": "data that this program has converted",
        "half/": "data that this program has begun to convert",
        "other/config.json": "not a picture: .json",
    }
    # The folder of the pictures may also be the folder of the run.
    (run / "config.json").rename(run.parent / "config.json")
    touch(run.parent, ["report/curves.png"])
    assert "report/" in left_out(source)


# Zips.


def write_zip(path: pathlib.Path, names: List[bytes], flag: int = 0) -> str:
    """Write members with names in bytes, as other programs do."""
    with zipfile.ZipFile(str(path), "w") as archive:
        for index in range(len(names)):
            archive.writestr(f"{index:#>{len(names[index])}}", JPEG + bytes([index]))
    content = path.read_bytes()
    for index, name in enumerate(names):
        content = content.replace(f"{index:#>{len(name)}}".encode(), name)
    if flag:
        for magic, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            parts = content.split(magic)
            place -= 4
            parts[1:] = [
                part[:place] + struct.pack("<H", flag) + part[place + 2 :]
                for part in parts[1:]
            ]
            content = magic.join(parts)
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    "names, flag, expected",
    [
        ([x.encode("gbk") for x in ("猫猫/001.jpg", "老虎/001.jpg")], 0, "猫猫 老虎"),
        ([x.encode("utf-8") for x in ("猫猫/001.jpg", "老虎/001.jpg")], 0, "猫猫 老虎"),
        (
            [x.encode("utf-8") for x in ("猫猫/001.jpg", "虎/001.jpg")],
            0x800,
            "猫猫 虎",
        ),
        ([x.encode("cp437") for x in ("Hündin/1.jpg", "Bär/01.jpg")], 0, "Bär Hündin"),
        ([b"c0\\000.jpg", b"c1\\0001.jpg"], 0, "c0 c1"),
        ([b"a\\0/00.jpg", b"b/0001.jpg"], 0, "a\\0 b"),
    ],
)
def test_names_in_zips_are_those_that_people_gave(
    tmp_path: pathlib.Path, names: List[bytes], flag: int, expected: str
) -> None:
    source = write_zip(tmp_path / "source.zip", names, flag)
    paths = listed(source)
    assert sorted({path.split("/")[0] for path in paths}) == expected.split()
    reader = tree.PictureReader(source)
    assert {reader.read(path)[-1] for path in paths} == {0, 1}


def test_members_that_lead_elsewhere_are_left_out(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "source.zip"
    with zipfile.ZipFile(str(path), "w") as archive:
        for name in [*TWO, "../dog/evil.jpg", "/dog/evil.jpg", "dog/../../e.jpg"]:
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("cat/link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a/" * 3000 + "deep.txt", b"x")
    assert listed(path) == TWO
    assert left_out(path)["cat/link.jpg"] == ("link in an archive", True)


def damage_directory(content: bytearray) -> None:
    content[content.index(b"PK\1\2") + 2] = 0


def need_new_version(content: bytearray) -> None:
    content[content.index(b"PK\1\2") + 6] = 99


def claim_utf8(content: bytearray) -> None:
    at = content.index(b"PK\1\2")
    content[at + 9] |= 0x08
    content[at + 46] = 0xFF


def name_nothing(content: bytearray) -> None:
    at = content.index(b"PK\1\2") + 46
    size = content.index(b"1.jpg", at) + 5 - at
    content[at : at + size] = bytes(size)  # Names end at their first NUL.


@pytest.mark.parametrize(
    "damage", [damage_directory, need_new_version, claim_utf8, name_nothing]
)
def test_damaged_zips_are_one_message(tmp_path: pathlib.Path, damage: Any) -> None:
    path = tmp_path / "broken.zip"
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("cat/1.jpg", JPEG)
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    if damage is name_nothing:
        assert listed(path) == [] and len(left_out(path)) == 1
        return
    with pytest.raises(DataError, match="cannot be read as a zip") as error:
        tree.open_tree(str(path))
    assert str(path) in str(error.value) and error.value.exit_code == 3


def test_reader_reads_folder_and_zip_alike(tmp_path: pathlib.Path) -> None:
    folder = pictures.make_folder(tmp_path / "folder", num_per_class=1)
    archive = pictures.make_zip(folder, tmp_path / "folder.zip")
    data = tree.PictureReader(folder).read("cat/0.jpg")
    assert data.startswith(JPEG[:3])
    assert tree.PictureReader(archive).read("cat/0.jpg") == data


def test_reader_refuses_huge_files(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(tree, "_USUAL_BYTES", 100)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(1000))
        archive.writestr("b.jpg", bytes(1001))
    reader = tree.PictureReader(str(path))
    assert len(reader.read("a.jpg")) == 1000
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        reader.read("b.jpg")
