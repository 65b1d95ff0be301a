"""The run record is read as it was written, and damage is named."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import pytest

from alexnet_estimator import run_record
from alexnet_estimator.config import default_config, resolve
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.run_record import RunRecord


def a_record(**fields: Any) -> RunRecord:
    config = resolve(default_config(), "allow_mix_precision", (1.0, 2.0, 3.0))
    return RunRecord(**{"config": config, "class_names": ("cat", "dog"), **fields})


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "dog"),
        (os.fsdecode(b"caf\xe9"), "caf\u00e9", "\u2028", '"', "a\nb"),
        tuple(f"{i:05}".ljust(246, "\u00e9") for i in range(4303)),
    ],
    ids=["plain", "strange", "many and long"],
)
def test_what_is_written_is_read(names: Any, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "config.json")
    record = a_record(class_names=names, num_ranks=2, conversion={"short_side": 8})
    run_record.write(path, record)
    assert run_record.read(path) == record
    json.loads(pathlib.Path(path).read_text(encoding="utf-8"))  # Others can read it.


def test_the_order_of_the_classes_belongs_to_a_run(tmp_path: pathlib.Path) -> None:
    record = a_record()
    run_record.write(str(tmp_path / "config.json"), record)
    for is_training in (True, False):
        arguments = (str(tmp_path), record.config)
        run_record.check_fit(*arguments, ("cat", "dog"), is_training)
        with pytest.raises(
            ConfigError, match="are dog, cat, but cat, dog in the stored"
        ):
            run_record.check_fit(*arguments, ("dog", "cat"), is_training)


def test_a_record_that_could_not_be_read_is_not_written(tmp_path: pathlib.Path) -> None:
    names = tuple(f"{i:06}".ljust(250) for i in range(280_000))
    with pytest.raises(ConfigError, match="280000 names of classes need 6. MiB"):
        run_record.write(str(tmp_path / "config.json"), a_record(class_names=names))
    assert os.listdir(str(tmp_path)) == []


def test_names_of_version_1_0_are_read_as_they_were_written(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"config": {}, "class_names": ["caf\xe9"]}')
    assert run_record.read(str(path)).class_names == (os.fsdecode(b"caf\xe9"),)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "damaged .not JSON"),
        ("[1]", "damaged .it has no {"),
        ("{}", "damaged .it has no {"),
        ('{"config": [1]}', "damaged .it has no {"),
        ('{"config": {"data": {"paht": ""}}}', "did you mean data.path"),
        ('{"config": {}}', "damaged .it has no class_names"),
        ('{"config": {"data": 3}}', "config is .* an object whose values are objects"),
        (
            '{"config": {}, "class_names": [1]}',
            r"class_names is \[1\]; it must be a list of names",
        ),
        ('{"config": {}, "class_names": "ab"}', "class_names is 'ab'; it must be"),
        ('{"config": {}, "class_names": ["a"], "num_ranks": "2"}', "num_ranks is '2'"),
    ],
)
def test_damage_is_named(content: str, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        run_record.read(str(path))
    assert str(path) in str(error.value)


def test_changes_that_affect_the_training_are_found() -> None:
    changed = default_config()
    changed.npu.seed_dropout = True
    changed.npu.iterations_per_loop = 7
    changed.optim.momentum = 0.5
    changed.runtime.num_threads = 3
    changed.convert.short_side = 100
    record = a_record(config=resolve(changed, "allow_mix_precision", (1.0, 2.0, 3.0)))
    assert sorted(run_record.find_changes(a_record(), record)) == [
        "npu.seed_dropout: False -> True",
        "optim.momentum: 0.9 -> 0.5",
    ]


def test_other_data_is_a_change() -> None:
    old = a_record(data_digest="a", class_counts={"train": [3, 4], "validation": [1]})
    new = a_record(data_digest="b", class_counts={"train": [8, 4], "validation": [2]})
    assert run_record.find_changes(old, new) == [
        "data: train 7 images, validation 1 image -> "
        "train 12 images, validation 2 images"
    ]


@pytest.mark.parametrize(
    "option, value, is_refused",
    [
        ("fold", 1, True),
        ("split_seed", 3, True),
        ("eval_fraction", 0.5, True),
        ("short_side", 100, False),
    ],
)
def test_a_run_keeps_the_pictures_that_it_holds_out(
    option: str, value: Any, is_refused: bool, capsys: pytest.CaptureFixture
) -> None:
    split = {"eval_fraction": 0.2, "split_seed": 0, "short_side": 71}
    old = a_record(data_digest="a", conversion=split)
    new = a_record(data_digest="b", conversion={**split, option: value})
    run_record.check_split("RUN", old, dataclasses.replace(new, data_digest="a"))
    assert not capsys.readouterr().err
    if is_refused:
        message = f"RUN.*convert.{option} is {value}, but .* in the stored run"
        with pytest.raises(ConfigError, match=message):
            run_record.check_split("RUN", old, new)
        return
    run_record.check_split("RUN", old, new)
    assert not capsys.readouterr().err  # The same pictures have another size.
    new = a_record(data_digest="b", conversion=split)
    run_record.check_split("RUN", old, new)
    assert "may have been trained on" in capsys.readouterr().err
    # Data from elsewhere are no mistake.
    elsewhere = default_config()
    elsewhere.data.path = "elsewhere"
    run_record.check_split(
        "RUN", old, dataclasses.replace(new, config=resolve(elsewhere))
    )
    assert not capsys.readouterr().err


def test_a_resolved_configuration_does_not_change() -> None:
    config = default_config()
    resolved = resolve(config, "allow_mix_precision", (1.23456, 2.0, 3.0))
    assert resolved.data.mean_rgb == (1.235, 2.0, 3.0)
    assert config == default_config()
    # A recorded loop is resolved again when the run is resumed.
    assert resolved.npu.iterations_per_loop == 1
    looping = resolve(config, steps_per_loop=40)
    assert resolve(looping).npu.iterations_per_loop == 40
    with pytest.raises(AttributeError):
        resolved.data.path = "elsewhere"
