"""The job asks what an accelerator can do, and never compares its name."""

import ast
import json
import pathlib
import re
import sys
import types
from typing import Any, Dict, Iterator, List, Optional

import pytest

import alexnet_estimator
from alexnet_estimator import __main__ as cli
from alexnet_estimator import runtime, schema
from alexnet_estimator.config import config_from
from alexnet_estimator.errors import EXIT_DONE, EXIT_USAGE, ConfigError
from tests import pictures
from tests.toy_accelerator import ToyRuntime
from tests.training import without_report

PACKAGE = pathlib.Path(alexnet_estimator.__file__).parent
# Only the runtimes, the launch backends and the registration may contain names.
KNOWERS = re.compile(r"runtime/.*|launch/.*|rank_environment\.py|schema\.py")


@pytest.fixture
def toy(monkeypatch: Any) -> Iterator[str]:
    """Register the fictitious accelerator as the first one, and return its name."""
    entry = schema.AcceleratorEntry("tests.toy_accelerator:Toy", "horovod")
    monkeypatch.setattr(ToyRuntime, "num_made", 0)
    entries = {"toy": entry, **schema.ACCELERATORS}
    schema.ACCELERATORS.clear()
    schema.ACCELERATORS.update(entries)
    yield "toy"
    del schema.ACCELERATORS["toy"]


def test_the_next_accelerator_trains(
    toy: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    source = pictures.make_folder(tmp_path / "pictures")
    words = ["train", "--config=configs/tiny.py", f"--data_path={source}"]
    words += [f"--model_dir={tmp_path}/run", "--train_steps=3"]
    for device in (toy, "auto"):
        assert cli.main([*words, f"--device={device}", "--dry_run"]) == 0
        card = capsys.readouterr().out
        assert re.search(r"device +toy", card)
        assert re.search("precision +force_fp32", card)
    assert ToyRuntime.num_made == 0
    with without_report():
        assert cli.main([*words, "--device=auto"]) == 0
    assert ToyRuntime.num_made == 1
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["device"] == "toy"
    assert record["config"]["precision"]["mode"] == "force_fp32"
    assert (tmp_path / "run" / "model.ckpt-3.index").exists()


def test_a_mode_that_another_accelerator_has_is_refused(toy: str) -> None:
    with pytest.raises(
        ConfigError, match="toy.*--device=npu or gpu or cpu.*force_fp32"
    ):
        runtime.settle_precision("allow_mix_precision", "toy")


def test_compression_of_gradients_is_refused_where_nothing_would_do_it(
    toy: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["train", "--config=configs/tiny.py", f"--model_dir={tmp_path}/run"]
    words += ["--config.data.synthetic=True", "--dry_run"]
    words.append("--config.precision.gradient_compression=fp16")
    assert cli.main([*words, "--device=cpu"]) == EXIT_DONE
    capsys.readouterr()
    assert cli.main([*words, "--device=toy"]) == EXIT_USAGE
    message = "gradient_compression is 'fp16', which --device={} does not support"
    assert message.format("toy") in capsys.readouterr().err
    with pytest.raises(ConfigError, match=message.format("npu")):
        runtime.check_gradient_compression("fp16", "npu")


@pytest.mark.parametrize(
    "device, size, variables, expected",
    [
        ("cpu", {"width_multiplier": 0.02}, {}, "1.0"),
        ("cpu", {"width_multiplier": 0.25}, {}, "3.4"),
        ("cpu", {}, {}, "10.0"),
        ("cpu", {}, {"HOROVOD_CYCLE_TIME": "4"}, "4"),
        ("gpu", {}, {}, None),
    ],
)
def test_ranks_on_cpus_exchange_the_state_of_large_gradients_less_often(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    size: Dict[str, float],
    variables: Dict[str, str],
    expected: Optional[str],
) -> None:
    # AlexNet has 1.3 million weights with a quarter of its width, at 63 px.
    horovod = types.ModuleType("alexnet_estimator.runtime.horovod")
    setattr(horovod, "HorovodRuntime", lambda device: device)
    monkeypatch.setitem(sys.modules, horovod.__name__, horovod)
    sections: Dict[str, Any] = {
        "model": size,
        "data": {"image_size": 63 if size else 227},
    }
    config = config_from(sections)
    places = ("", "LOCAL_", "CROSS_")
    environ = {f"HOROVOD_{place}RANK": "0" for place in places}
    environ.update({f"HOROVOD_{place}SIZE": "1" for place in places}, **variables)
    made: Any = runtime.find_accelerator(device).make_runtime(config, environ)
    assert made == device
    assert environ.get("HOROVOD_CYCLE_TIME") == expected


def compared_names(tree: ast.AST) -> List[str]:
    """Return the names of accelerators in comparisons and subscripts of a module."""
    operands: List[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands += [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            operands.append(node.slice)
    constants = [part for operand in operands for part in ast.walk(operand)]
    return [
        c.s for c in constants if isinstance(c, ast.Str) and c.s in schema.ACCELERATORS
    ]


def test_nobody_else_compares_an_accelerators_name() -> None:
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        names = compared_names(ast.parse(file.read_text(encoding="utf-8")))
        if names:
            found[file.relative_to(PACKAGE).as_posix()] = names
    assert [name for name in found if not KNOWERS.fullmatch(name)] == []
    assert found, "the walk finds nothing at all"


def test_the_walk_sees_comparisons() -> None:
    source = 'x = a == "npu" or d in ("cpu", "x") or TABLE["gpu"] or f("npu")'
    assert sorted(compared_names(ast.parse(source))) == ["cpu", "gpu", "npu"]
