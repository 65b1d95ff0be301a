"""Networks are found by name, and every subcommand works for examples/lenet.py."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, NamedTuple

import numpy as np
import pytest

from alexnet_estimator import __main__ as cli
from alexnet_estimator import config as config_lib
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks import Network, find_network, graphs
from alexnet_estimator.schema import Field, at_least
from tests import pictures
from tests.ranks import train_two_ranks
from tests.training import evaluation, metrics, variables, without_report

ROOT = pathlib.Path(__file__).resolve().parents[1]
LENET = ROOT / "examples" / "lenet.py"
LAYERS = ("conv1", "conv2", "fc3", "fc4", "head")
# Small pictures, few steps, one thread.
QUICK = [
    "--config.data.image_size=28",
    "--config.data.shuffle_images=64",
    "--config.model.hidden_units=20",
    "--config.optim.schedule=constant",
    "--config.train.eval_every_epochs=0",
    "--config.runtime.num_threads=1",
    "--batch_size=8",
    "--precision_mode=float32",
    "--device=cpu",
    "--quiet",
]


# The modules that may name AlexNet.


def test_nobody_but_its_module_knows_alexnets_layers() -> None:
    package = ROOT / "alexnet_estimator"
    pattern = re.compile(r"alexnet/|\bconv[1-5]|\bfc[678]|LAYER_NAMES")
    files = sorted(package.rglob("*.py"))
    found = [
        str(file.relative_to(package))
        for file in files
        if pattern.search(file.read_text(encoding="utf-8"))
    ]
    assert {name.split(os.sep)[0] for name in found} == {"networks"}


def test_alexnet_is_chosen_without_tensorflow() -> None:
    code = (
        "import sys; from alexnet_estimator.config import default_config, validate; "
        "validate(default_config()); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.call([sys.executable, "-c", code], cwd=str(ROOT)) == 0


# The configuration of another network.


def test_the_section_model_has_the_settings_of_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    words = [("model.hidden_units", "7"), ("model.network", "examples/lenet.py")]
    for overrides in (words, words[::-1]):
        config = config_lib.default_config()
        config_lib.apply_overrides(config, overrides)
        assert config.model.to_dict() == {
            "network": str(LENET),  # The run is found from any folder.
            "channels": 6,
            "hidden_units": 7,
            "keep_prob": 0.5,
        }
        config_lib.apply_overrides(config, [("model.network", "examples/lenet.py")])
        assert config.model.hidden_units == 7
    section = {"hidden_units": 7, "network": "examples/lenet.py"}
    assert config_lib.config_from({"model": section}).to_dict() == config.to_dict()
    assert config_lib.default_config(str(LENET)).model.hidden_units == 84
    config_lib.apply_overrides(config, [("model.network", "alexnet")])
    assert config.to_dict() == config_lib.default_config().to_dict()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"hiden_units": 3}, "no field model.hiden_units; did you mean model.hidden"),
        ({"fc6_units": 3}, "no field model.fc6_units"),
        ({"hidden_units": "3"}, "must be of type int"),
        ({"hidden_units": 0}, "model.hidden_units is 0: must be at least 1"),
    ],
)
def test_settings_are_checked_like_other_fields(
    fields: Dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        section = {"network": str(LENET), **fields}
        config_lib.validate(config_lib.config_from({"model": section}))


def test_the_network_checks_itself() -> None:
    config = config_lib.default_config(str(LENET))
    config.data.image_size = 15
    config.warm_start.frozen_until = "conv1"
    with pytest.raises(ConfigError, match="data.image_size is 15: must be at least 16"):
        config_lib.validate(config)
    config.data.image_size = 16
    config_lib.validate(config)
    for name in ("conv3", "head"):
        config.warm_start.frozen_until = name
        with pytest.raises(ConfigError, match="one of '', conv1, conv2, fc3, fc4$"):
            config_lib.validate(config)
    other = config_lib.default_config()
    other.model.network = str(LENET)  # Its settings are missing.
    with pytest.raises(ConfigError, match="config_from"):
        config_lib.validate(other)


def test_help_shows_the_settings(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["train", "--helpfull", f"--config.model.network={LENET}"]) == 0
    shown = capsys.readouterr().out
    assert "--config.model.hidden_units=84" in shown and "fc6_units" not in shown


# Files and modules that cannot be used.


@pytest.mark.parametrize(
    "content, message",
    [
        ("network = 3", "has int as `network`: must contain `network = Network(...)`"),
        ("x = 3", "has no `network`"),
        ("x = 1\nimport nowhere", "ModuleNotFoundError: No module named 'nowhere' (li"),
        ("x = (", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3 (line 6)"),
        ("network = make(check=lambda settings, size: None)", "returned None: must be"),
        ("make(build=lambda images: 0)", "build must be a function of (images, num_cl"),
        ("make(build=3)", "build is 3"),
        (
            "make(check=lambda: [])",
            "check must be a function of (settings, image_size)",
        ),
        ("make(layer_names=['a'])", "layer_names is ['a']: must be a tuple of names"),
        ("make(layer_names=('a', 'b', 'a'))", "must not repeat a name"),
        ("make(layer_names=('a/b',))", "'a/b' cannot be a scope"),
        ("make(name='le/net')", "'le/net' cannot be a scope"),
        ("make(drawn_kernels='b')", "drawn_kernels is 'b': must be one of ('a',)"),
        ("make(pixel_layer='b')", "pixel_layer is 'b': must be one of ('a',)"),
        ("make(settings={'n': 3})", "the setting n is 3: must be a schema.Field"),
        (
            "make(settings={'n': Field(0, at_least(1), '')})",
            "n is 0: must be at least 1",
        ),
        (
            "make(settings={'network': Field(1, at_least(1), '')})",
            "the name of a setting",
        ),
    ],
)
def test_wrong_files_get_one_message(
    content: str, message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from alexnet_estimator.networks import Network\n"
        "from alexnet_estimator.schema import Field, at_least\n"
        "def make(**changes):\n"
        "    usual = dict(name='n', build=lambda *five: 0, layer_names=('a',))\n"
        "    return Network(**{**usual, **changes})\n" + content
    )
    assert cli.main(["train", f"--config.model.network={file}"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {file}: ") and message in shown
    assert "Traceback" not in shown


def test_an_error_while_the_graph_is_built_is_named(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from alexnet_estimator.networks import Network\n"
        "def build(images, num_classes, settings, dropout, compute_dtype):\n"
        "    return imges\n"
        "network = Network(name='n', build=build, layer_names=('a',))\n"
    )
    settings = config_lib.config_from({"model": {"network": str(file)}}).model
    with pytest.raises(ConfigError, match=r"mine.py: NameError: .*imges.* .line 3."):
        graphs.count_parameters(2, 63, settings)


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing/mine.py", "No such file or directory: --config.model.network takes"),
        ("resnet", "no network 'resnet': use alexnet"),
        ("", "no network ''"),
        ("no_package.mine", "no network 'no_package.mine'"),
        ("json.nothing", "no network 'json.nothing'"),
        ("json.decoder", "json.decoder: has no `network`"),
        ("json.decoder:JSONDecoder", "has type as `JSONDecoder`"),
    ],
)
def test_networks_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        find_network(name)


def test_modules_of_other_packages(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_package").mkdir()
    shutil.copy(str(LENET), str(tmp_path / "their_package" / "nets.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_network("their_package.nets")
    assert (found.name, found.source) == ("lenet", "their_package.nets")
    assert find_network("their_package.nets:network").layer_names == LAYERS
    assert found.sha256 == find_network(str(LENET)).sha256
    assert find_network("alexnet").sha256 == ""


# All subcommands with LeNet.


class Runs(NamedTuple):
    """Finished runs of LeNet, started in a folder that contains its file."""

    folder: pathlib.Path
    whole: str
    parts: str


def run(*words: str) -> int:
    return cli.main([*words, "--quiet"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Runs:
    folder = tmp_path_factory.mktemp("lenet")
    file = shutil.copy(str(LENET), str(folder / "lenet.py"))
    found = Runs(folder, str(folder / "whole"), str(folder / "parts"))
    words = [f"--data_path={data_dir}", f"--config.model.network={file}", *QUICK]
    assert run("train", *words, f"--model_dir={found.whole}", "--train_steps=6") == 0
    parts = f"--model_dir={found.parts}"
    with without_report():
        assert run("train", *words, parts, "--train_steps=3") == 0
        assert run("train", parts, "--train_steps=6") == 0
    return found


def test_a_resumed_run_equals_an_uninterrupted_one(runs: Runs) -> None:
    whole, parts = variables(runs.whole), variables(runs.parts)
    assert {name.split("/")[1] for name in whole if "/" in name} == set(LAYERS)
    assert whole["lenet/fc4/kernel"].shape == (120, 20)
    assert set(whole) == set(parts) and whole["global_step"] == 6
    for name, value in whole.items():
        assert parts[name].tobytes() == value.tobytes(), name
    assert len(metrics(runs.parts, "start")) == 2


def test_a_run_records_its_network(runs: Runs) -> None:
    record = json.loads(pathlib.Path(runs.whole, "config.json").read_text())
    assert record["config"]["model"]["network"] == str(runs.folder / "lenet.py")
    network = record["network"]
    assert (network["name"], network["title"]) == ("lenet", "LeNet-5")
    assert network["sha256"] == find_network(str(LENET)).sha256
    hidden_units = {"default": 84, "doc": "Units of fc4"}
    assert network["settings"]["hidden_units"] == hidden_units


def test_the_report_is_about_the_network(runs: Runs) -> None:
    page = pathlib.Path(runs.whole, "report.html").read_text(encoding="utf-8")
    assert "LeNet-5" in page and "AlexNet" not in page
    assert "model.hidden_units" in page and "Units of fc4" in page
    assert os.path.exists(os.path.join(runs.whole, "conv1_kernels.png"))


def test_evaluate(runs: Runs) -> None:
    before = evaluation(runs.whole, 6)
    os.remove(os.path.join(runs.whole, "eval", "6.json"))
    assert run("evaluate", f"--model_dir={runs.whole}") == 0
    assert evaluation(runs.whole, 6) == before


def test_predict_and_export(runs: Runs, picture_folder: str) -> None:
    output = runs.folder / "exported"
    assert run("export", f"--model_dir={runs.whole}", f"--output={output}") == 0
    assert '"images:1,28,28,3"' in (output / "to_om.sh").read_text()
    answers = []
    for model_dir in (runs.whole, output):
        file = runs.folder / "answers.csv"
        words = [picture_folder, f"--model_dir={model_dir}", f"--output={file}"]
        assert run("predict", *words) == 0
        answers.append(file.read_text().splitlines())
    trained, exported = answers
    assert len(trained) == 61
    classes = [[row.split(",")[1] for row in rows] for rows in answers]
    assert classes[0] == classes[1]


def test_an_exported_model_needs_no_file_of_the_network(
    runs: Runs, picture_folder: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "lenet.py"
    shutil.copy(str(LENET), str(file))
    words = [f"--config.model.network={file}", "--format=saved_model"]
    output = tmp_path / "exported"
    assert run("export", f"--model_dir={runs.whole}", f"--output={output}", *words) == 0
    file.unlink()
    record = output / "saved_model" / "1" / "assets.extra" / "config.json"
    assert str(tmp_path) not in record.read_text()
    assert json.loads(record.read_text())["network"]["title"] == "LeNet-5"
    words = ["-m", "alexnet_estimator", "predict", picture_folder]
    words += [f"--model_dir={output}", f"--output={tmp_path / 'answers.csv'}"]
    assert subprocess.call([sys.executable, *words], cwd=str(ROOT)) == 0
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 61


def test_warm_start_with_a_new_head(runs: Runs, tmp_path: pathlib.Path) -> None:
    data = pictures.make_dataset(tmp_path, ("bee", "cow"), 12).directory
    words = [
        *("train", f"--data_path={data}", f"--model_dir={tmp_path / 'run'}"),
        *(f"--config.model.network={runs.folder / 'lenet.py'}", "--train_steps=2"),
        *(f"--warm_start_from={runs.whole}", "--config.warm_start.frozen_until=conv2"),
    ]
    with without_report():
        assert run(*words, *QUICK) == 0
    record = json.loads((tmp_path / "run" / "warm_start.json").read_text())
    assert record["restored"] == list(LAYERS[:-1])
    assert record["new"] == {"head": "has 2 classes, 3 in the source"}
    before, after = variables(runs.whole), variables(tmp_path / "run")
    assert after["lenet/head/bias"].shape == (2,)
    assert not np.array_equal(after["lenet/fc3/kernel"], before["lenet/fc3/kernel"])
    for part in ("kernel", "bias"):
        # The mean of other pictures is folded into the first layer.
        name = f"lenet/conv2/{part}"
        assert after[name].tobytes() == before[name].tobytes()
        assert f"{name}/Momentum" not in after
        assert f"lenet/fc3/{part}/Momentum" in after


def test_two_ranks(runs: Runs, data_dir: str, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed")
    words = ["train", f"--data_path={data_dir}", "--train_steps=2", *QUICK]
    words.append(f"--config.model.network={runs.folder / 'lenet.py'}")
    assert train_two_ranks(words, tmp_path)["global_step"] == 2


def test_batch_normalisation_and_variables_of_other_names(
    data_dir: str, tmp_path: pathlib.Path
) -> None:
    file = pathlib.Path(__file__).with_name("normalised_network.py")
    setting = "--config.model.hidden_units=20"
    words = [f"--data_path={data_dir}", f"--config.model.network={file}"]
    words += [word for word in QUICK if word != setting]
    folders = {name: tmp_path / name for name in ("whole", "parts", "warm", "export")}
    for name, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        more = [f"--model_dir={folders[name]}", f"--train_steps={steps}"]
        with without_report():
            assert run("train", *words, *more) == 0
    whole, parts = variables(folders["whole"]), variables(folders["parts"])
    for name, value in whole.items():
        assert parts[name].tobytes() == value.tobytes(), name
    statistics = [name for name in whole if "/moving_" in name]
    assert len(statistics) == 4
    for name in statistics:
        assert np.abs(whole[name] - name.endswith("variance")).max() > 0.01, name
    output = (
        f"--output={folders['export']}"  # The export is compared with the checkpoint.
    )
    assert run("export", f"--model_dir={folders['whole']}", output) == 0
    words += [f"--warm_start_from={folders['whole']}", "--train_steps=2"]
    words += ["--config.warm_start.frozen_until=block1", "--config.optim.ema_decay=0.5"]
    with without_report():
        assert run("train", *words, f"--model_dir={folders['warm']}") == 0
    warm = variables(folders["warm"])
    for name, value in whole.items():
        if not name.endswith("/Momentum"):
            is_frozen = name.startswith("normalised/block1/")
            assert (warm[name].tobytes() == value.tobytes()) == is_frozen, name


# Graphs that cannot be used.


def of_other_layers(*_: Any) -> Any:
    with tf.variable_scope("body"):
        tf.get_variable("w", [1])
    # This variable has the name of the layer, but is not in its scope.
    tf.get_variable("head", [1])
    return tf.zeros([1, 3])


@pytest.mark.parametrize(
    "build, changes, problems",
    [
        (of_other_layers, {}, ["net/body/w is in none", "net/head is in none"]),
        (lambda *_: tf.zeros([1, 2]), {}, ["must be logits of the shape [batch, 3]"]),
        (lambda *_: None, {}, ["build returned None"]),
        (
            lambda images, *_: tf.layers.dense(images[:, 0, 0], 3, name="head"),
            {"pixel_layer": "body"},
            ["no net/body/kernel", "no net/body/bias"],
        ),
    ],
)
def test_wrong_graphs_get_one_message(
    build: Any, changes: Any, problems: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = ("body", "head") if changes else ("head",)
    network = Network("net", build, layers, source="mine.py", **changes)
    monkeypatch.setattr(graphs, "find_network", lambda name: network)
    with pytest.raises(ConfigError, match="^network mine.py: ") as error:
        graphs.variable_shapes(3, 8, config_lib.default_config().model)
    assert len(error.value.problems) == len(problems)
    for problem, expected in zip(error.value.problems, problems):
        assert expected in problem


# Runs whose network has changed.


def test_another_network_is_not_the_run(
    runs: Runs, capsys: pytest.CaptureFixture
) -> None:
    folder = f"--model_dir={runs.whole}"
    for words, message in (
        (["--config.model.network=alexnet"], "the network is alexnet, but"),
        (["--config.model.hidden_units=21"], "model.hidden_units is 21, but"),
    ):
        words = ["train", folder, "--config.data.image_size=63", *words]
        assert cli.main(words) == 2
        assert message in capsys.readouterr().err


def test_a_network_that_has_moved_is_given_again(
    runs: Runs, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    folder = shutil.copytree(runs.whole, str(tmp_path / "run"))
    record = pathlib.Path(folder, "config.json")
    gone = str(tmp_path / "gone.py")
    old = str(runs.folder / "lenet.py")
    record.write_text(record.read_text().replace(old, gone))
    assert cli.main(["evaluate", f"--model_dir={folder}"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {gone}: No such file") and "new path" in shown
    words = [f"--model_dir={folder}", f"--config.model.network={LENET}"]
    assert run("evaluate", *words) == 0
    assert evaluation(folder, 6) == evaluation(runs.whole, 6)


def test_a_record_from_elsewhere_names_no_file_beside_it(
    runs: Runs, tmp_path: pathlib.Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(runs.whole, str(tmp_path / "run"))
    record = pathlib.Path(folder, "config.json")
    (tmp_path / "run" / "evil.py").write_text("raise SystemExit(99)")
    old = str(runs.folder / "lenet.py")
    record.write_text(record.read_text().replace(old, "run/evil.py"))
    monkeypatch.chdir(tmp_path)
    for verb in ("evaluate", "predict", "train"):
        assert cli.main([verb, f"--model_dir={folder}"]) == 2
        assert "model.network is the relative path run/" in capsys.readouterr().err


def test_a_network_whose_file_has_changed(
    runs: Runs, tmp_path: pathlib.Path, capsys: Any
) -> None:
    file = tmp_path / "changed.py"
    file.write_text(LENET.read_text().replace("Units of fc4", "another text"))
    words = [f"--model_dir={runs.whole}", f"--config.model.network={file}"]
    assert run("evaluate", *words) == 0
    assert f"{file} has changed since the run" in capsys.readouterr().err


def test_a_network_that_has_changed_its_variables(
    runs: Runs, picture_folder: str, tmp_path: pathlib.Path, capsys: Any
) -> None:
    folder = shutil.copytree(runs.whole, str(tmp_path / "run"))
    file = tmp_path / "changed.py"
    file.write_text(LENET.read_text().replace('("fc3", 120)', '("fc3", 124)'))
    words = [f"--model_dir={folder}", f"--config.model.network={file}"]
    for verb in (["train", "--train_steps=7"], ["evaluate"], ["predict", "."]):
        assert cli.main([*verb, *words]) == 2
        shown = capsys.readouterr().err
        assert "has lenet/fc3/kernel of the shape [256, 120], not [256, 124]" in shown
        assert "Traceback" not in shown
    assert variables(folder)["global_step"] == 6


def test_a_network_object_needs_little() -> None:
    network = Network("tiny", lambda *five: None, ("head",))
    assert (network.title, network.head) == ("tiny", "head")
    assert network.layers_until("") == () and network.layers_until("head") == ("head",)
    assert network.check(None, 1) == []
    field = Field(1, at_least(1), "")
    with pytest.raises(ConfigError, match="2 problems"):
        Network("a b", lambda *five: None, ("head",), settings={"x y": field})
