"""The command line: every mistake gets one message and its exit code."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple, Tuple
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import __main__ as cli
from alexnet_estimator import config as config_lib
from alexnet_estimator import launch, rank_table, records
from alexnet_estimator.command_line import FLAG_TABLE, parse
from alexnet_estimator.config import Config
from alexnet_estimator.jobs import data
from alexnet_estimator.jobs import dry_run as dry_run_job
from alexnet_estimator.jobs.benchmark import job as benchmark_job
from alexnet_estimator.runtime import settle_device
from alexnet_estimator.schema import SCHEMA
from alexnet_estimator.verbs import ranks, settings
from tests import pictures

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TINY = str(REPOSITORY / "configs" / "tiny.py")
BAD_CONFIGS = {
    "raises.py": "def get_config():\n    return 1 / 0\n",
    "syntax.py": "def get_config(:\n",
    "nothing.py": "",
    "dict.py": "def get_config():\n    return {'train': {'epochs': 3.0}}\n",
    "sections.py": (
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict({'train': {'epochs': 3.0}})\n"
    ),
    "unknown.py": (
        "from alexnet_estimator import config\n"
        "def get_config():\n"
        "    return config.config_from({'optim': {'learning_rat': 0.1}})\n"
    ),
    "broken.json": '{"config": {',
    "text.txt": "learning_rate: 0.1",
    "remote.json": '{"config": {"data": {"path": "hdfs://n/x"}}}',
}


class Output(NamedTuple):
    """The exit code and the output of a command line."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture) -> Any:
    """Return a function that runs a command line in this process."""

    def run_words(*words: str) -> Output:
        capfd.readouterr()
        code = cli.main(list(words))
        return Output(code, *capfd.readouterr())

    return run_words


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Dict[str, str]:
    """Return folders and files for wrong command lines, by name."""
    folder = tmp_path_factory.mktemp("places")
    for name in ("empty", "new", "bare_run"):
        (folder / name).mkdir()
    pictures.make_folder(folder / "one_class", ["cat"], 3)
    (folder / "file").write_text("a file")
    for name, text in BAD_CONFIGS.items():
        (folder / name).write_text(text)
    # Reading this file of the kernel fails with EIO, as on a broken disk.
    (folder / "eio.py").symlink_to("/proc/self/mem")
    (folder / "bare_run" / "metrics.jsonl").symlink_to("/proc/self/mem")
    config = {"config": config_lib.default_config().to_dict(), "class_names": []}
    config["config"]["data"]["path"] = data_dir
    (folder / "bare_run" / "config.json").write_text(json.dumps(config))
    made = rank_table.make(["127.0.0.1"], 2)
    rank_table.write(made, str(folder / "good_table.json"))
    table = json.loads((folder / "good_table.json").read_text())
    table["server_list"][0]["device"][1]["rank_id"] = "5"
    table["server_list"][0]["device"][0]["device_ip"] = "10.0.0.300"
    (folder / "bad_table.json").write_text(json.dumps(table))
    paths = {path.name.replace(".", "_"): str(path) for path in folder.iterdir()}
    return {**paths, "missing": str(folder / "missing"), "data": data_dir, "tiny": TINY}


# A command line, its exit code and texts of its message.
MISTAKES: List[Tuple[str, int, List[str]]] = [
    ("trian", 2, ["'trian'", "train"]),
    ("train extra", 2, ["'extra'", "--help"]),
    ("train --data_path={missing}", 3, ["{missing}", "no such folder"]),
    ("train --data_path={empty}", 3, ["{empty}"]),
    ("train --data_path={one_class}", 3, ["{one_class}", "cat"]),
    ("train --data_path={file}", 3, ["{file}", "zip"]),
    ("convert --data_path={missing} --output={new}", 3, ["{missing}"]),
    ("convert --data_path={one_class}", 2, ["--output is missing"]),
    ("convert", 2, ["--data_path is missing", "--output is missing"]),
    ("verify", 2, ["--data_path"]),
    ("verify --data_path={empty}", 3, ["{empty}"]),
    ("train --batchsize=8", 2, ["batchsize", "batch_size"]),
    ("train --dry_run=perhaps", 2, ["dry_run", "perhaps"]),
    ("train --config.optim.momentun=0.9", 2, ["optim.momentun", "optim.momentum"]),
    ("train --config.nothing.at=1", 2, ["nothing.at"]),
    ("train --config.optim.momentum", 2, ["--config.optim.momentum=VALUE"]),
    ("train --train_steps=-1", 2, ["train.steps", "-1", "at least 0"]),
    ("train --train_steps=many", 2, ["train.steps", "many", "int"]),
    ("train --config.data.image_size=10", 2, ["data.image_size", "10", "at least 63"]),
    ("train --epoch=0", 2, ["train.epochs", "0"]),
    (
        "train --config.optim.momentum=2 --config.model.groups=3 --seed=-5 "
        "--batch_size=0",
        2,
        ["4 problems", "optim.momentum", "model.groups", "seed", "batch_size"],
    ),
    ("train --config.data.synthetic=True --data_path={data}", 2, ["choose one"]),
    (
        "train --config.convert.num_folds=2 --config.convert.fold=2",
        2,
        ["convert.fold is 2 but convert.num_folds is 2"],
    ),
    (
        "train --config.convert.num_folds=1 --config.convert.eval_images=3",
        2,
        ["2 problems", "num_folds is 1: must be 0", "eval_images is 3: choose one"],
    ),
    ("train --config.convert.fold=1", 2, ["convert.num_folds is 0"]),
    (
        "train --config.optim.decay_epochs=(30,30) --dry_run",
        2,
        ["optim.decay_epochs is (30, 30)", "increasing"],
    ),
    (
        "train --config.train.patience_epochs=2 --config.train.eval_every_epochs=0 "
        "--dry_run",
        2,
        ["patience_epochs is 2.0", "eval_every_epochs is 0", "only evaluations show"],
    ),
    ("train --config={missing}", 2, ["{missing}", "configs/"]),
    ("train --config={raises_py}", 2, ["{raises_py}", "ZeroDivisionError"]),
    ("train --config={syntax_py}", 2, ["{syntax_py}", "SyntaxError"]),
    ("train --config={nothing_py}", 2, ["{nothing_py}", "get_config"]),
    ("train --config={dict_py}", 2, ["{dict_py}", "default_config()"]),
    ("train --config={sections_py}", 2, ["{sections_py}", "default_config()"]),
    ("train --config={unknown_py}", 2, ["optim.learning_rat", "optim.learning_rate?"]),
    ("train --config={broken_json}", 2, ["{broken_json}", "JSON"]),
    ("train --config={text_txt}", 2, ["{text_txt}", ".py"]),
    ("train --config={eio_py}", 3, ["{eio_py}", "Input/output error"]),
    ("train --config.model.network={eio_py}", 3, ["{eio_py}", "Input/output error"]),
    ("report {bare_run}", 3, ["{bare_run}/metrics.jsonl", "Input/output error"]),
    ("evaluate --seed=1 --dry_run", 2, ["--seed", "--dry_run", "does not use"]),
    ("verify --epochs=2", 2, ["verify does not use --epoch"]),
    ("evaluate", 2, ["--model_dir is missing"]),
    ("evaluate --model_dir={empty}", 2, ["{empty}", "train"]),
    ("train --model_dir=s3://b/run", 2, ["--model_dir", "'s3://b/run'", "mount"]),
    ("train --config.data.path=gs://b/x", 2, ["data.path", "'gs://b/x'", "mount"]),
    ("train --config={remote_json}", 2, ["data.path", "'hdfs://n/x'", "mount"]),
    ("convert --data_path=~nobody-here/x --output=a://b", 2, ["2 problems", "./~nob"]),
    ("predict --model_dir={empty} s3://a/b.jpg", 2, ["argument 1", "'s3://a/b.jpg'"]),
    ("train --device=tpu --data_path={data}", 2, ["runtime.device", "tpu", "npu"]),
    ("train --precision_mode=force_fp16 --device=cpu --data_path={data}", 2, ["cpu"]),
    (
        "train --precision_mode=force_fp16 --device=cpu --data_path={data} --dry_run",
        2,
        ["cpu", "--device=npu"],
    ),
    (
        "train --config.npu.iterations_per_loop=100 --device=npu --train_steps=150 "
        "--data_path={data} --dry_run",
        2,
        ["150", "iterations_per_loop = 100"],
    ),
    ("train --config={tiny} --data_path={data} --model_dir={file}", 2, ["{file}"]),
    ("train --rank_table={missing} --data_path={data}", 2, ["{missing}"]),
    (
        "train --rank_table={bad_table_json} --data_path={data}",
        2,
        ["{bad_table_json}", '"5"', '"10.0.0.300"', "rank_id", "device_ip"],
    ),
    (
        "train --rank_table={good_table_json} --server_id=10.9.9.9 --data_path={data}",
        2,
        ["10.9.9.9", "127.0.0.1"],
    ),
    (
        "train --rank_table={good_table_json} --rendezvous_port=x --data_path={data}",
        2,
        ["--rendezvous_port", "'x'"],
    ),
    (
        "train --rank_table={good_table_json} --rendezvous_port=70000 "
        "--data_path={data}",
        2,
        ["--rendezvous_port is 70000", "65535"],
    ),
    ("train --hang_timeout_secs=\N{SUPERSCRIPT TWO} --data_path={data}", 2, ["whole"]),
    ("train --server_id=10.0.0.1 --data_path={data}", 2, ["needs --rank_table"]),
    ("report {bare_run} --output={new}/page", 2, ["{new}/page", "end with .html"]),
    ("rank_table", 2, ["check FILE", "make"]),
    ("rank_table check {bad_table_json}", 2, ["{bad_table_json}", '"5"']),
    ("rank_table make --output={new}", 2, ["--servers is missing"]),
    ("rank_table make --servers=10.0.0.1 --output={file}", 2, ["{file}", "exists"]),
    ("rank_table make --servers=10.0.0.1 --output=x.json --devices=17", 2, ['"16"']),
    ("rank_table make --servers=a,a --output=x.json --devices=0", 2, ["twice", "is 0"]),
]


@pytest.mark.parametrize("line, code, parts", MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_gets_one_message(
    line: str, code: int, parts: List[str], places: Dict[str, str], run: Any
) -> None:
    output = run(*(word.format_map(places) for word in line.split()))
    assert output.code == code
    assert output.err.count("error: ") == 1
    assert "Traceback" not in output.err + output.out
    for part in parts:
        assert part.format_map(places) in output.err
    assert os.listdir(places["empty"]) == [] == os.listdir(places["new"])


@pytest.mark.parametrize(
    "words, code, parts",
    [
        ([], 3, ["checkpoint", "train first"]),
        (["--checkpoint={missing}"], 3, ["{missing}", "model.ckpt-STEP"]),
    ],
)
def test_evaluating_without_weights(
    words: List[str], code: int, parts: List[str], places: Dict[str, str], run: Any
) -> None:
    path = pathlib.Path(places["bare_run"], "config.json")
    record = json.loads(path.read_text())
    record["class_names"] = records.manifest.load(places["data"]).class_names
    path.write_text(json.dumps(record))
    words = [word.format_map(places) for word in words]
    output = run("evaluate", f"--model_dir={places['bare_run']}", *words)
    assert output.code == code
    assert output.err.count("error: ") == 1 and "Traceback" not in output.err
    for part in parts:
        assert part.format_map(places) in output.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> str:
    """Return the folder of a run of two steps."""
    model_dir = str(tmp_path_factory.mktemp("trained") / "run")
    words = [f"--config={TINY}", f"--data_path={data_dir}", f"--model_dir={model_dir}"]
    assert cli.main(["train", *words, "--train_steps=2"]) == 0
    return model_dir


@pytest.mark.parametrize(
    "verb, change, parts",
    [
        ("train", "--config.model.width_multiplier=0.125", ["0.125", "0.0625"]),
        ("train", "--config.data.image_size=67", ["data.image_size", "67", "63"]),
        ("train", "--config.optim.optimizer=adam", ["'adam'", "'momentum'"]),
        ("train", "--config.optim.ema_decay=0.9", ["optim.ema_decay", "0.9"]),
        ("train", "--data_path={other}", ["cat, dog", "apple, ocean, tree"]),
        ("train", "--data_path={other} --dry_run", ["cat, dog"]),
        ("evaluate", "--data_path={other}", ["cat, dog", "apple, ocean, tree"]),
        ("evaluate", "--config.model.fc6_units=512", ["512", "4096"]),
    ],
)
def test_a_run_is_not_continued_with_another_model(
    trained: str,
    verb: str,
    change: str,
    parts: List[str],
    run: Any,
    tmp_path: pathlib.Path,
) -> None:
    other = pictures.make_dataset(tmp_path).directory
    before = pathlib.Path(trained, "config.json").read_bytes()
    words = change.format(other=other).split()
    output = run(verb, f"--model_dir={trained}", *words)
    assert output.code == 2
    assert output.err.count("error: ") == 1 and "Traceback" not in output.err
    for part in [*parts, trained, "another --model_dir"]:
        assert part in output.err
    assert pathlib.Path(trained, "config.json").read_bytes() == before


def test_a_run_of_an_earlier_version_goes_on(
    trained: str, tmp_path: pathlib.Path, run: Any
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained, str(copy))
    record = json.loads((copy / "config.json").read_text())
    del record["config"]["warm_start"], record["config"]["model"]["conv_channels"]
    (copy / "config.json").write_text(json.dumps(record))
    assert run("evaluate", f"--model_dir={copy}").code == 0
    other = "--config.model.conv_channels=(96,256,384,256,256)"
    output = run("evaluate", f"--model_dir={copy}", other)
    assert output.code == 2 and "conv_channels is (96, 256, 384, 256" in output.err


def test_a_damaged_record_is_named(
    data_dir: str, tmp_path: pathlib.Path, run: Any
) -> None:
    data = tmp_path / "data"
    shutil.copytree(data_dir, str(data))
    shard = data / "train-00001-of-00003.tfrecord"
    content = bytearray(shard.read_bytes())
    length = int.from_bytes(content[:8], "little")
    content[length + 16 + 12 + 40] ^= 0xFF  # Byte 40 of the second record's data.
    shard.write_bytes(bytes(content))
    words = [f"--data_path={data}", f"--model_dir={tmp_path / 'run'}"]
    output = run("train", f"--config={TINY}", *words)
    assert output.code == 3
    assert "Traceback" not in output.err
    assert re.search(rf"{shard.name}\W+record 1: ", output.err)
    output = run("verify", f"--data_path={data}")
    assert output.code == 3
    assert re.search(rf"{shard.name}\W+record 1: ", output.out)


def test_verify_passes_whole_data(data_dir: str, run: Any) -> None:
    output = run("verify", f"--data_path={data_dir}")
    assert (output.code, output.out.strip()) == (0, "no damage")


def test_convert_says_what_it_has_made(
    picture_folder: str, tmp_path: pathlib.Path, run: Any
) -> None:
    output = run(
        *("convert", f"--config={TINY}", f"--data_path={picture_folder}"),
        *(f"--output={tmp_path / 'out'}", "--config.convert.eval_images=15"),
    )
    assert output.code == 0
    assert "train: 45 images in 3 files" in output.out
    assert "validation: 15 images in 1 file\n" in output.out
    assert "3 classes: apple, ocean, tree" in output.out
    assert records.manifest.load(str(tmp_path / "out")).num_classes == 3


def test_rank_tables_are_made_and_checked(tmp_path: pathlib.Path, run: Any) -> None:
    path = str(tmp_path / "table.json")
    servers = "--servers=10.0.0.1,10.0.0.2"
    output = run("rank_table", "make", servers, "--devices", "4", f"--output={path}")
    assert output.code == 0
    assert rank_table.read(path).num_ranks == 8
    output = run("rank_table", "check", path)
    assert output.code == 0
    assert "8 ranks on 2 servers" in output.out


def test_a_recipe_for_warm_starts_serves_other_verbs(
    data_dir: str, tmp_path: pathlib.Path, run: Any
) -> None:
    recipe, data = "--config=configs/finetune.py", f"--data_path={data_dir}"
    source = f"--data_path={pictures.make_folder(tmp_path / 'pictures')}"
    assert run("convert", recipe, source, f"--output={tmp_path / 'data'}").code == 0
    assert run("verify", recipe, data).code == 0
    with mock.patch.object(benchmark_job, "benchmark") as benchmark:
        assert run("benchmark", "train", recipe, data).code == 0
    benchmark.assert_called_once()
    output = run("train", recipe, data, f"--model_dir={tmp_path / 'run'}")
    assert output.code == 2 and "give --warm_start_from" in output.err


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, run: Any) -> Any:
    """Return a function from the flags of train to its configuration and model_dir."""

    def plan(*words: str) -> Tuple[Config, str]:
        with mock.patch.object(
            dry_run_job, "dry_run", return_value=("", [])
        ) as dry_run:
            output = run("train", "--dry_run", *words)
        assert output.code == 0, output.err
        config, model_dir, _ = dry_run.call_args[0]
        return config, model_dir

    return plan


def test_flags_set_fields(planned: Any, data_dir: str) -> None:
    config, model_dir = planned(
        *(f"--data_path={data_dir}", "--model_dir=some/run", "--train_steps=7"),
        *("--epoch=3.5", "--batch_size=5", "--learning_rate=0.25", "--device=cpu"),
        *("--precision_mode=mixed", "--loss_scale=128", "--seed", "9"),
        *("--config.optim.decay_epochs=(1,2.5)", "--config.data.use_augmentation=no"),
    )
    assert model_dir == "some/run"
    assert config.data.path == data_dir
    train = config.train
    assert (train.steps, train.epochs, train.batch_size_per_rank) == (7, 3.5, 5)
    assert (config.optim.learning_rate, train.seed) == (0.25, 9)
    assert (config.runtime.device, config.precision.loss_scale) == ("cpu", "128")
    assert config.precision.mode == "mixed"
    assert config.optim.decay_epochs == (1, 2.5)
    assert config.data.use_augmentation is False


@pytest.mark.parametrize(
    "asked", ["auto", "npu"]
)  # A device that is named may be missing here.
def test_a_dry_run_settles_device_and_precision(
    asked: str, places: Dict[str, str], run: Any
) -> None:
    device = settle_device(asked) if asked == "auto" else asked
    words = ["train", f"--config={TINY}", f"--data_path={places['data']}"]
    output = run(*words, f"--device={asked}", "--dry_run")
    card = output.out
    assert re.search(rf"device +{device}, TensorFlow", card)
    assert output.code == (2 if asked == "npu" else 0)
    assert ("runtime.device is npu" in output.err) == (asked == "npu")
    on_host, on_npu = "float32, loss scale none", "mixed .allow_mix_precision."
    assert re.search(f"precision +{on_npu if device == 'npu' else on_host}", card)


def test_a_dry_run_counts_pictures_and_converts_none(
    picture_folder: str, tmp_path: pathlib.Path, run: Any
) -> None:
    words = ["train", f"--config={TINY}", f"--data_path={picture_folder}"]
    output = run(*words, f"--model_dir={tmp_path / 'run'}", "--dry_run")
    assert output.code == 0 and os.listdir(tmp_path) == []
    assert "3 classes, 48 images for training, 12 for evaluation" in output.out
    assert "training will first convert 60 pictures" in output.out


def test_a_dry_run_says_what_is_missing(
    data_dir: str, places: Dict[str, str], tmp_path: pathlib.Path, run: Any
) -> None:
    words = ["train", f"--config={TINY}", f"--data_path={data_dir}", "--dry_run"]
    words += [f"--model_dir={tmp_path / 'run'}"]
    usage = shutil.disk_usage(str(tmp_path))._replace(free=1 << 20)
    table = f"--rank_table={places['good_table_json']}"
    with mock.patch.object(shutil, "disk_usage", return_value=usage), mock.patch.object(
        launch.horovod, "find_missing", return_value=["no Horovod"]
    ):
        output = run(*words, table)
    assert output.code == 2 and "dry run: nothing was trained" in output.out
    assert "training cannot run here: 2 problems" in output.err
    assert "no Horovod" in output.err
    assert "1 MiB free, but the checkpoints need 3 MiB" in output.err
    # For a job of other servers, nothing is missing here.
    other = str(tmp_path / "other.json")
    rank_table.make_file(["10.9.9.8", "10.9.9.9"], 1, other)
    output = run(*words, f"--rank_table={other}", "--device=npu")
    assert output.code == 0 and output.err == "loading TensorFlow ...\n"


@pytest.mark.parametrize(
    "verb, is_training", [("train", True), ("benchmark", True), ("evaluate", False)]
)
def test_the_launcher_opens_the_data_that_its_ranks_open(
    verb: str, is_training: bool, places: Dict[str, str]
) -> None:
    """An evaluation uses the recorded data, even if the pictures have changed."""
    command = parse([verb, "--device=cpu"], cli.VERBS[verb])
    config = settings.configure(command, None)
    topology = rank_table.read(places["good_table_json"])
    with mock.patch.object(data, "open_data") as open_data:
        with mock.patch.object(launch, "run", return_value=0):
            assert ranks.launch_ranks(command, config, "run", topology) == 0
    open_data.assert_called_once_with(config, "run", is_training)


def test_aliases_are_the_flags_of_the_original(planned: Any, data_dir: str) -> None:
    config, _ = planned(f"--data_dir={data_dir}", "--epochs=3")
    assert (config.data.path, config.train.epochs) == (data_dir, 3.0)


def test_epochs_on_the_command_line_beat_steps_in_the_file(
    planned: Any, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "steps.json"
    file.write_text('{"config": {"train": {"steps": 500, "epochs": 2.0}}}')
    config, _ = planned(f"--config={file}", "--epoch=3")
    assert (config.train.steps, config.train.epochs) == (0, 3.0)


def test_what_is_trained_where_little_is_said(
    planned: Any, data_dir: str, places: Dict[str, str], trained: str
) -> None:
    config, model_dir = planned()
    assert (config.data.path, model_dir) == ("sample:mono_poly", "runs/quickstart")
    config, model_dir = planned(f"--rank_table={places['good_table_json']}")
    assert (config.model.width_multiplier, model_dir) == (0.25, "runs/quickstart_8p")
    config, model_dir = planned(f"--data_path={os.path.relpath(data_dir)}")
    assert (config.data.path, model_dir) == (data_dir, "runs/default")
    assert config.data.image_size == 227
    config, _ = planned("--config.data.synthetic=True")
    assert (config.data.path, config.data.image_size) == ("", 227)
    config, _ = planned(f"--config={TINY}")
    assert (config.data.path, config.data.image_size) == ("sample:mono_poly", 63)
    # A run is resumed with its own configuration.
    config, model_dir = planned(f"--model_dir={trained}")
    assert (config.train.steps, model_dir) == (2, trained)
    assert (config.data.path, config.data.image_size) == (data_dir, 63)


def test_ready_made_configurations_are_found_everywhere(
    planned: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, _ = planned("--config=configs/tiny.py")
    assert config.train.epochs == 4.0
    (tmp_path / "configs").mkdir()
    mine = (REPOSITORY / "configs" / "tiny.py").read_text().replace("4.0", "5.0")
    (tmp_path / "configs" / "tiny.py").write_text(mine)
    config, _ = planned("--config=configs/tiny.py")
    assert config.train.epochs == 5.0


def test_a_consequence_is_no_second_problem(run: Any) -> None:
    error = run("train", "--learning_rate=-1").err
    assert "optim.learning_rate is -1.0: must be above 0" in error
    assert "problems" not in error and "end_learning_rate" not in error


def test_home_is_found_after_the_equals_sign(
    planned: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")  # Shells do not expand --flag=~.
    config, model_dir = planned("--model_dir=~/run", "--config.data.path=~/photos")
    assert (model_dir, config.data.path) == ("/home/me/run", "/home/me/photos")
    config, _ = planned("--data_path=~/x")
    assert config.data.path == "/home/me/x"
    words = ["--warm_start_from=~/y", "--model_dir=~/run"]
    assert "/home/me/y: is not there" in run("train", *words).err


def test_steps_win_over_epochs_aloud(planned: Any, run: Any) -> None:
    with mock.patch.object(dry_run_job, "dry_run", return_value=("", [])):
        output = run("train", "--dry_run", "--train_steps=7", "--epoch=3")
    assert "--train_steps=7 decides" in output.err
    assert "--epoch=3 is not used" in output.err


def test_a_relative_source_of_the_weights_is_found_from_any_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks, and the command that resumes the run, may start in another folder."""
    monkeypatch.chdir(tmp_path)
    command = parse(["train", "--warm_start_from=runs/a"], cli.VERBS["train"])
    config = settings.configure(command, None)
    assert config.warm_start.path == str(tmp_path / "runs" / "a")


def test_predict_takes_pictures_of_any_name() -> None:
    names = ["line\nbreak.jpg", os.fsdecode(b"\xff.jpg")]
    command = parse(["predict", "--model_dir=run", *names], cli.VERBS["predict"])
    assert command.arguments == names


def test_an_interrupted_command_can_be_told_from_a_finished_one(run: Any) -> None:
    """A scheduler starts a job again that has ended with this exit code."""

    def interrupt(command: Any) -> int:
        raise KeyboardInterrupt

    verb = dataclasses.replace(cli.VERBS["verify"], run=interrupt)
    with mock.patch.dict(cli.VERBS, verify=verb):
        output = run("verify")
    assert output.code == 75
    assert "run the same command again to continue" in output.err


def test_one_command_line_leaves_nothing_for_the_next(planned: Any) -> None:
    planned("--config.data.synthetic=True", "--seed=5", "--train_steps=3")
    config, _ = planned("--config.data.synthetic=True")
    assert (config.train.seed, config.train.steps) == (0, 0)
    config, _ = planned()
    assert (config.data.synthetic, config.data.path) == (False, "sample:mono_poly")


def test_flags_fit_the_schema_and_the_verbs() -> None:
    assert len(FLAG_TABLE) < 40
    for flag in FLAG_TABLE.values():
        section, _, name = flag.field.partition(".")
        assert not flag.field or name in SCHEMA[section]
    used = {name for verb in cli.VERBS.values() for name in verb.flags.split()}
    assert used | {"quiet"} == set(FLAG_TABLE)


@pytest.mark.parametrize("name", cli.VERBS)
def test_the_help_of_a_verb(name: str, run: Any) -> None:
    verb, (code, text, _) = cli.VERBS[name], run(name, "--help")
    assert code == 0 and max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"usage: python -m alexnet_estimator {name} {verb.usage}")
    assert re.findall(r"^  --(\w+)", text, re.M) == list(verb.flag_names)
    assert set(verb.texts) <= set(verb.flag_names)
    for flag_name in verb.flag_names:
        flag = FLAG_TABLE[flag_name]
        doc = verb.texts.get(flag_name, flag.doc)
        assert re.fullmatch(r"[A-Z].*\b(Default: |Required, ).*\.", doc), doc
        assert flag.is_switch or "e.g. " in doc or "Example: " in doc
    assert len(verb.examples) >= 2
    for example in verb.examples:
        words = example.split()
        assert words[0] == name and parse(words, verb)
        assert words[1] in text


def test_help(run: Any) -> None:
    assert run() == run("--help") == run("help")
    whole = run("--help").out
    assert all(f"\n  {name} " in whole for name in cli.VERBS)
    assert max(map(len, whole.splitlines())) <= 80
    fields = run("train", "--helpfull").out
    for section, names in SCHEMA.items():
        for name in names:
            assert f"--config.{section}.{name}=" in fields
    assert "(True or False)" in fields and "(a whole number, at least 0)" in fields
    assert "any value" not in fields
    of_convert = run("convert", "--helpfull").out
    assert "--config.convert." in of_convert and "--config.optim." not in of_convert


def test_versions(run: Any) -> None:
    code, out, _ = run("--version")
    version = re.escape(tf.__version__)
    pattern = (
        rf"alexnet_estimator 1\.\d\.\d, [\w-]*tensorflow[\w-]* {version}, Python .*"
    )
    assert code == 0 and re.fullmatch(pattern, out.strip())


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["rank_table", "check", "rank_tables/2x8p.json"]],
)
def test_answers_that_need_no_tensorflow(words: List[str]) -> None:
    program = str(REPOSITORY / "tests" / "programs" / "answer_without_tensorflow.py")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, program, *words]
    assert subprocess.call(command, cwd=str(REPOSITORY), env=environment) == 0


def test_the_program_itself(places: Dict[str, str]) -> None:
    command = [sys.executable, "-m", "alexnet_estimator", "train", "--train_steps=-1"]
    done = subprocess.run(
        [*command, f"--data_path={places['missing']}"],
        cwd=str(REPOSITORY),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    line = "error: configuration: train.steps is -1: must be at least 0\n"
    assert done.stderr == line


@pytest.mark.parametrize("words", ["help", "rank_table check {good_table_json}"])
def test_a_full_disk_behind_stdout_is_one_message(
    words: str,
    places: Dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(words.format(**places).split()) == 3
    shown = capfd.readouterr().err
    assert shown.count("\n") == 1
    assert shown.startswith("error: standard output: No space left on device")
