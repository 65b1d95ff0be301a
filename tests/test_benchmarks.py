"""The benchmark scripts beside the package compute the right figures."""

import json
import pathlib
import re
import subprocess
import sys
from typing import Any, Dict

import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator.config import config_from
from benchmarks import compare, harness, memory, plain_alexnet, synthetic
from benchmarks.compare import Promise

SCRIPTS = sorted(
    path.stem
    for path in pathlib.Path(compare.__file__).parent.glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
FASTER = Promise("step", "ours", "theirs", 1.5)
SMALLER = Promise("memory", "peak", "computed", 1.3)
SOONER = Promise("start", "train", 8.0, 1.0)


def line(
    benchmark: str, case: str, value: float, higher_is_better: bool = True
) -> Dict[str, Any]:
    return {
        "benchmark": benchmark,
        "case": case,
        "value": value,
        "unit": "",
        "higher_is_better": higher_is_better,
    }


def write(path: Any, *lines: Dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in lines))
    return str(path)


def test_a_promise_is_a_ratio_of_two_cases(tmp_path: Any) -> None:
    records = compare.read(
        write(
            tmp_path / "new",
            line("step", "ours", 90.0),
            line("step", "theirs", 60.0),
            line("memory", "peak", 131.0, False),
            line("memory", "computed", 100.0, False),
            line("start", "train", 6.0, False),
            line("step", "peak", 1.0),  # A case of another benchmark has the same name.
        )
    )
    rows = compare.check(records, (FASTER, SMALLER, SOONER))
    assert [round(row.ratio, 9) for row in rows] == [1.5, 1.31, 0.75]
    assert [row.is_kept for row in rows] == [True, False, True]


def test_promises_whose_cases_were_not_measured_are_left_out() -> None:
    records = {("step", "ours"): line("step", "ours", 1.0)}
    assert compare.check(records, (FASTER, SMALLER, SOONER)) == []


def test_changes_above_one_are_better(tmp_path: Any) -> None:
    old = write(
        tmp_path / "old",
        line("step", "ours", 40.0),
        line("start", "train", 4.0, False),
        line("gone", "case", 1.0),
    )
    new = write(
        tmp_path / "new",
        line("step", "ours", 1.0),
        line("start", "train", 5.0, False),
        line(
            "step", "ours", 50.0
        ),  # The case is measured again, and the last one counts.
    )
    ratios = compare.changes(compare.read(old), compare.read(new))
    assert ratios == {("step", "ours"): 1.25, ("start", "train"): 0.8}


def test_compare_prints_ratios_and_marks_broken_promises(
    tmp_path: Any, capsys: Any
) -> None:
    promise = compare.PROMISES[0]
    theirs = line(promise.benchmark, str(promise.against), 77.0)

    def compared(value: float) -> int:
        ours = line(promise.benchmark, promise.case, value)
        path = write(tmp_path / "new", ours, theirs)
        return compare.main([path, path])

    assert compared(77.0 * promise.limit * 1.01) == 0
    assert "WORSE" not in capsys.readouterr().out
    assert compared(77.0 * promise.limit * 0.99) == 1
    text = capsys.readouterr().out
    assert "WORSE" in text and f"{promise.limit * 0.99:.3f}" in text
    assert "77" not in text, "figures of one machine mean nothing beside another's"


def test_no_ratio_is_printed_of_a_disturbed_benchmark(
    tmp_path: Any, capsys: Any
) -> None:
    promise = compare.PROMISES[0]
    theirs = line(promise.benchmark, str(promise.against), 1.0)
    ours = line(promise.benchmark, promise.case, 2.0)

    def compared(share: float) -> int:
        quiet, busy = {**theirs, "other_cpu_share": 0.1}, {"other_cpu_share": share}
        path = write(tmp_path / "new", {**ours, **busy, "cpu_model": "Z80"}, quiet)
        return compare.main([path, path])

    assert compared(0.1) == 0
    text = capsys.readouterr().out
    assert "2.000" in text and "measured on: Z80, an unknown CPU" in text
    assert compared(0.11) == 1
    text = capsys.readouterr().out
    assert "2.000" not in text and f"{promise.case}: 11%" in text


def test_the_cpu_time_of_other_processes_is_counted() -> None:
    start = harness.read_cpu_secs()
    subprocess.check_call([sys.executable, "-c", "sum(range(2 * 10**7))"])
    end = harness.read_cpu_secs()
    assert 0.05 < end.ours - start.ours <= end.total - start.total + 0.1
    # The kernel counts in hundredths of a second.
    assert end.busy - start.busy <= end.total - start.total + 0.1
    # Of 10 s on all cores, 6 s were busy and 4 s of these were ours.
    share = harness.other_cpu_share(
        harness.CpuSecs(100, 50, 1), harness.CpuSecs(110, 56, 5)
    )
    assert share == pytest.approx(0.2)


def test_every_promise_is_measured_by_a_script() -> None:
    """A promise about a benchmark that no script writes would never be checked."""
    folder = pathlib.Path(compare.__file__).parent
    texts = "".join(
        (folder / f"{name}.py").read_text(encoding="utf-8")
        for name in SCRIPTS
        if name != "compare"
    )
    assert len(SCRIPTS) > 8
    assert {
        p.benchmark for p in compare.PROMISES if f'"{p.benchmark}"' not in texts
    } == (set())


def test_the_document_promises_the_same() -> None:
    text = (harness.REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    limits = {float(limit) for limit in re.findall(r"\| [<>]= ([\d.]+) \|", text)}
    assert limits == {promise.limit for promise in compare.PROMISES}


def test_the_document_names_every_script() -> None:
    text = (harness.REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    named = set(re.findall(r"python -m benchmarks\.(\w+)", text))
    assert named == set(SCRIPTS) - {"decoders", "plain_alexnet"}


def test_cases_take_turns_and_the_median_counts(tmp_path: Any) -> None:
    order = []

    def measure(name: str, *numbers: float) -> harness.Measure:
        left = list(numbers)

        def next_number() -> float:
            order.append(name)
            return left.pop(0)

        return next_number

    options = harness.make_parser("").parse_args(
        [f"--output={tmp_path / 'lines'}", "--rounds=3"]
    )
    cases = {"a": measure("a", 1.0, 9.0, 2.0), "b": measure("b", 5.0, 5.0, 5.0)}
    harness.run_and_append(
        options, harness.Kind("x", "s", False), cases, {"a": {}, "b": {"numpy": "1"}}
    )
    assert "".join(order) == "ababab"
    lines = (tmp_path / "lines").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["case"], first["value"], first["unit"]) == ("a", 2.0, "s")
    assert first["values"] == [1.0, 9.0, 2.0] and not first["higher_is_better"]
    assert first["cpu_model"] and first["num_cores"] > 0
    assert second["versions"] == {"numpy": "1"}


@pytest.mark.parametrize("others", ["", "/theirs"])
def test_processes_find_our_package_first(others: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("PYTHONPATH", others)
    seen = harness.run([sys.executable, "-c", "import os; print(os.environ)"])
    ours = str(harness.REPOSITORY)
    assert f"'PYTHONPATH': '{ours}{others and ':' + others}'" in seen


def test_engines_are_named_or_those_of_the_repository() -> None:
    assert harness.parse_engine("2.15=/x/python").python == "/x/python"
    found = harness.parse_engine("1.15").python
    assert found == str(harness.REPOSITORY / ".venv" / "1.15" / "bin" / "python")


@pytest.mark.parametrize("name", ["compare", "plain_alexnet"])
def test_help_in_a_process_of_its_own(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    text = subprocess.check_output(command, cwd=str(harness.REPOSITORY), timeout=60)
    assert b"usage" in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str, capsys: Any, monkeypatch: Any) -> None:
    module = __import__(f"benchmarks.{name}", fromlist=["main"])
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    first_line = (module.__doc__ or "").splitlines()[0]
    assert first_line in " ".join(capsys.readouterr().out.split())


def test_the_plain_graph_has_as_many_weights_as_ours() -> None:
    with tf.Graph().as_default():
        plain_alexnet.build_logits(tf.placeholder(tf.float32, [2, 227, 227, 3]))
        sizes = [v.shape.num_elements() for v in tf.trainable_variables()]
    config = config_from({})
    ours = memory.needed_bytes(config, plain_alexnet.NUM_CLASSES)
    assert ours["weights"] == 4 * sum(sizes) == 4 * 60965224  # Caffe's AlexNet.


def test_the_plain_graph_updates_all_weights() -> None:
    with tf.Graph().as_default():
        plain_alexnet.build_train_op(1)
        slots = [v for v in tf.global_variables() if v.op.name.endswith("Momentum")]
        assert len(slots) == 16


def test_memory_of_a_known_network() -> None:
    config = config_from(
        {
            "data": {"image_size": 67},
            "model": {"width_multiplier": 1 / 16, "lrn_alpha": 0.0},
            "train": {"batch_size_per_rank": 3},
        }
    )
    with_lrn = config_from({**config.to_dict(), "model": {"width_multiplier": 1 / 16}})
    # Channels: 8, 16, 24, 24, 16; sides: 67 -> 15 -> 7 -> 3 -> 1; 256 units twice.
    images = 67 * 67 * 3
    convolved = 15 * 15 * 8 + 7 * 7 * 16 + 3 * 3 * (24 + 24 + 16)
    pooled = 7 * 7 * 8 + 3 * 3 * 16 + 16
    dense = 3 * (256 + 256) + 10
    needed = memory.needed_bytes(config, 10)
    assert needed["activations"] == 4 * 3 * (images + convolved + pooled + dense)
    more = memory.needed_bytes(with_lrn, 10)["activations"] - needed["activations"]
    assert more == 4 * 3 * (15 * 15 * 8 + 7 * 7 * 16)
    kernels = 11 * 11 * 3 * 8 + 25 * 4 * 16 + 9 * (16 * 24 + 12 * 24 + 12 * 16)
    kernels += 16 * 256 + 256 * 256 + 256 * 10
    weights = kernels + 8 + 16 + 24 + 24 + 16 + 256 + 256 + 10
    assert needed["weights"] == needed["slots"] == needed["gradients"] == 4 * weights


def test_made_up_pictures_are_as_many_as_asked_for(tmp_path: Any) -> None:
    folder = pathlib.Path(synthetic.make_pictures(str(tmp_path / "pictures"), 205))
    assert len(list(folder.glob("*/*.jpg"))) == 205
    contents = {path.read_bytes() for path in folder.glob("*/*.jpg")}
    assert len(contents) == synthetic.NUM_DIFFERENT
