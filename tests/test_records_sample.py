"""The sample data are checked, sorted into classes, and downloaded only once."""

import collections
import hashlib
import os
import pathlib
import stat
import sys
import zipfile
from typing import Any, Dict, List

import pytest

from alexnet_estimator.errors import DataError
from alexnet_estimator.records import sample

LABELS = """\
images/1.png  1.0                 mono
images/2.png  0.3333333333333333  mono
images/3.png  0.0                 poly
"""
# Numbers of cells of each type with the probabilities 0, 1/3, 2/3 and 1 of a defect.
MONO, POLY = (588, 117, 56, 313), (920, 178, 50, 402)


def files_of(folder: str) -> Dict[str, List[str]]:
    return {
        name: sorted(os.listdir(os.path.join(folder, name)))
        for name in sorted(os.listdir(folder))
        if os.path.isdir(os.path.join(folder, name))
    }


@pytest.fixture
def downloads(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Replace the interpreter that runs pip by one that copies a small wheel.

    Returns:
        A list whose only item is the path to the log of calls.
    """
    wheel = tmp_path / "wheel.whl"
    with zipfile.ZipFile(str(wheel), "w") as archive:
        archive.writestr("elpv_dataset/data/labels.csv", LABELS)
        for number in (1, 2, 3):
            name = f"elpv_dataset/data/images/{number}.png"
            archive.writestr(name, f"picture {number}")
        archive.writestr("elpv_dataset/utils.py", "code")
    log = tmp_path / "log"
    log.write_text("")
    use_pip(
        tmp_path,
        monkeypatch,
        f'echo "$@" >> {log}; for last; do :; done\n'
        f'for a; do case "$a" in --dest=*) cp {wheel} "${{a#--dest=}}/x.whl";; esac; '
        "done",
    )
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(sample, "WHEEL_SHA256", digest)
    return [str(log)]


def use_pip(folder: pathlib.Path, monkeypatch: Any, script: str) -> None:
    python = folder / "python"
    python.write_text("#!/bin/sh\n" + script + "\n")
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.mark.parametrize(
    "task, expected",
    [
        ("mono_poly", {"mono": ["1.png", "2.png"], "poly": ["3.png"]}),
        ("defective", {"defective": ["1.png"], "functional": ["3.png"]}),
    ],
)
def test_photos_are_sorted_once(
    task: str,
    expected: Dict[str, List[str]],
    tmp_path: pathlib.Path,
    downloads: List[str],
    capsys: pytest.CaptureFixture,
) -> None:
    cache = tmp_path / "cache"
    # A killed download has left this folder.
    left = cache / f".elpv_{task}.01234567.tmp" / "mono"
    left.mkdir(parents=True)
    (left / "half.png").write_bytes(b"")
    folder = sample.fetch_sample(str(cache), task)
    assert files_of(folder) == expected
    (photo,) = pathlib.Path(folder).glob("*/1.png")
    assert photo.read_bytes() == b"picture 1"
    assert os.listdir(str(cache)) == [os.path.basename(folder)]
    said = capsys.readouterr().err
    for words in ("CC BY-NC-SA 4.0", "Deitsch", "Buerhop-Lutz", "2019", "2018"):
        assert words in said
        assert words in pathlib.Path(folder, "LICENCE.txt").read_text()
    assert sample.fetch_sample(str(cache), task) == folder
    assert capsys.readouterr().err == ""
    (call,) = pathlib.Path(downloads[0]).read_text().splitlines()
    assert "--no-deps" in call and call.endswith("elpv-dataset==1.0.0.post1")


def test_another_file_is_refused(
    tmp_path: pathlib.Path, downloads: List[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(DataError, match="SHA-256 .* instead of 0000"):
        sample.fetch_sample(str(tmp_path / "cache"))
    assert os.listdir(str(tmp_path / "cache")) == []


def test_without_network_the_message_says_what_to_do(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_pip(tmp_path, monkeypatch, "echo no route to host; exit 1")
    with pytest.raises(DataError, match="--data_path=.*no route to host") as error:
        sample.fetch_sample(str(tmp_path / "cache"))
    assert error.value.exit_code == 3
    assert os.listdir(str(tmp_path / "cache")) == []


def test_unknown_tasks_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="'cats'; there are mono_poly, defective"):
        sample.fetch_sample(str(tmp_path), "cats")


def test_defect_probability_is_split_as_in_the_paper() -> None:
    """The numbers of cells are those of Deitsch et al., 2019, table 3."""
    mono = zip(("0.0", "0.3333333333333333", "0.6666666666666666", "1.0"), MONO)
    poly = zip(("0.0", "0.3333333333333333", "0.6666666666666666", "1.0"), POLY)
    groups = [(p, "mono", n) for p, n in mono] + [(p, "poly", n) for p, n in poly]
    cells = [
        sample.Cell(f"images/{probability}{kind}{index}.png", probability, kind)
        for probability, kind, count in groups
        for index in range(count)
    ]
    folders = sample.TASKS["defect_probability"](cells)
    assert folders == sample.TASKS["defect_probability"](cells[::-1])
    assert set(folders) == set(cells) and len(cells) == 2624
    counts = collections.Counter(folder.split("/")[0] for folder in folders.values())
    assert counts == {"train": 1968, "validation": 656}
    places = {
        "0.0": "functional",
        "0.3333333333333333": "functional/sample_weight=0.6667",
        "0.6666666666666666": "defective/sample_weight=0.6667",
        "1.0": "defective",
    }
    for probability, kind, count in groups:
        members = [cell for cell in cells if cell[1:] == (probability, kind)]
        held_out = [c for c in members if folders[c].startswith("validation/")]
        assert abs(len(held_out) - count / 4) < 1
        assert {folders[c].split("/", 1)[1] for c in members} == {places[probability]}
