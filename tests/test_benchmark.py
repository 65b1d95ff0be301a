"""The benchmark counts and times the right things, and changes nothing else.

No test asserts a speed.
"""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import __main__ as cli
from alexnet_estimator import inputs, launch, rank_table
from alexnet_estimator.hooks.timing import CallCounts, Tick, TimingHook
from alexnet_estimator.jobs.benchmark import job
from alexnet_estimator.jobs.benchmark.figures import images_in_eval_step, speed_figures
from alexnet_estimator.jobs.benchmark.request import BenchmarkRequest, check_request
from alexnet_estimator.jobs.benchmark.timeline import to_chrome_trace
from tests import npu_double, tiny

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TINY = f"--config={REPOSITORY / 'configs' / 'tiny.py'}"
FIELDS: Dict[str, Any] = {
    **dict.fromkeys(("mode", "input", "device", "cpu_model", "tensorflow_build"), str),
    **dict.fromkeys(("num_steps", "num_warmup_steps", "num_images"), int),
    **dict.fromkeys(("num_ranks", "batch_size_per_rank", "image_size"), int),
    **dict.fromkeys(("num_cores", "num_threads"), int),
    **dict.fromkeys(("seconds", "time_secs", "peak_rss_mib"), float),
    **dict.fromkeys(("images_per_sec", "images_per_cpu_sec"), float),
    **dict.fromkeys(("images_per_sec_lowest", "images_per_sec_highest"), float),
    **dict.fromkeys(("step_ms_p50", "step_ms_p90", "step_ms_p99"), float),
    "input_wait_share": (float, type(None)),
    "config": dict,
    "versions": dict,
}


def ticks(*wall_secs: float) -> List[Tick]:
    return [Tick(secs, 0.0) for secs in wall_secs]


def read_lines(path: Any) -> List[Dict[str, Any]]:
    text = pathlib.Path(str(path)).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_throughput_is_images_over_seconds() -> None:
    # The mean of the rates would be (10 + 1 + 10 + 1) / 4.
    figures = speed_figures(ticks(5, 6, 16, 17, 27), [10] * 4)
    assert figures["num_images"] == 40
    assert figures["seconds"] == 22
    assert figures["images_per_sec"] == round(40 / 22, 2)


def test_spread_is_of_parts_of_the_window() -> None:
    # Eight calls make four parts; the third lasts 3 s + 1 s.
    ends = ticks(0, 1, 2, 3, 4, 7, 8, 8.5, 9)
    figures = speed_figures(ends, [4] * 8)
    assert figures["images_per_sec_lowest"] == 2.0
    assert figures["images_per_sec_highest"] == 8.0
    # Images that differ from call to call belong to their own part.
    figures = speed_figures(ticks(0, 1, 2), [6, 2])
    assert figures["images_per_sec_lowest"] == 2.0
    assert figures["images_per_sec_highest"] == 6.0


def test_percentiles_are_of_single_steps() -> None:
    secs = np.random.RandomState(0).permutation(np.arange(1, 102))
    ends = ticks(3, *(3 + np.cumsum(secs)))
    figures = speed_figures(ends, [1] * 101, steps_per_call=10)
    assert (figures["num_steps"], figures["num_images"]) == (1010, 101)
    assert figures["step_ms_p50"] == pytest.approx(5100)
    assert figures["step_ms_p90"] == pytest.approx(9100)
    assert figures["step_ms_p99"] == pytest.approx(10000)


def run_session(timing: TimingHook, is_input_slow: bool = False) -> int:
    """Run batches through a session until the hook ends it; return their number.

    Each call takes at least 0.05 s, for its input or for its computation.
    """

    def delay(number: Any) -> Any:
        time.sleep(0.05)
        return number

    def delayed(number: tf.Tensor) -> tf.Tensor:
        return tf.py_func(delay, [number], tf.int64)

    with tf.Graph().as_default():
        numbers = tf.data.Dataset.range(1000)
        if is_input_slow:
            numbers = numbers.map(delayed)
        iterator = tf.data.make_initializable_iterator(numbers)
        tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
        batch = iterator.get_next()
        batch = batch if is_input_slow else delayed(batch)
        with tf.train.MonitoredSession(hooks=[timing]) as session:
            while not session.should_stop():
                last = session.run(batch)
    return int(last) + 1


def test_warm_up_and_traced_calls_are_outside_of_the_window() -> None:
    durations = [100.0, 100.0, 2.0, 3.0, 4.0, 50.0, 50.0]
    wall, cpu = iter(np.cumsum(durations)), iter(range(7))
    timing = TimingHook(
        CallCounts(num_warmup=2, num_measured=3, num_traced=2),
        wall_clock=lambda: next(wall),
        cpu_clock=lambda: next(cpu),
    )
    assert run_session(timing) == 7
    assert [tick.wall_secs for tick in timing.ticks] == [200, 202, 205, 209]
    assert [tick.cpu_secs for tick in timing.ticks] == [1, 2, 3, 4]
    assert len(timing.traces) == 2
    assert timing.traced_secs == 100


def test_a_step_waits_for_slow_input_and_not_for_input_that_is_there() -> None:
    shares = []
    for is_input_slow in (True, False):
        clock = iter(np.arange(0, 1, 0.06))
        timing = TimingHook(CallCounts(1, 1, 4), wall_clock=lambda: next(clock))
        run_session(timing, is_input_slow)
        shares.append(timing.waiting_secs / timing.traced_secs)
    assert shares[0] > 0.5 > shares[1]


@pytest.mark.parametrize("num_ranks, num_images", [(1, 11), (2, 11), (3, 8), (4, 3)])
def test_images_of_an_evaluation_are_counted_without_padding(
    num_ranks: int, num_images: int, tmp_path: pathlib.Path
) -> None:
    records = [(tiny.encode(tiny.noise(i)), 0) for i in range(num_images)]
    dataset = tiny.write_dataset(tmp_path, [records], num_classes=2)
    data = tiny.config().data
    counted: List[float] = []
    for rank in range(num_ranks):
        reader = inputs.Reader(rank, num_ranks, batch_size=3)
        batches = tiny.read(lambda: inputs.eval_batches(dataset, data, reader))
        weights = [batch[0]["weight"].sum() for batch in batches]
        counted = [a + b for a, b in zip(counted or [0.0] * len(weights), weights)]
    steps = range(2 * len(counted))
    found = [images_in_eval_step(step, num_images, reader) for step in steps]
    assert found == counted * 2


def test_a_timeline_has_rows_without_overlaps() -> None:
    stats = tf.RunMetadata().step_stats
    device = stats.dev_stats.add(device="/cpu:0")
    for name, start, duration in (("b", 10, 5), ("a", 8, 4), ("c", 12, 0)):
        device.node_stats.add(
            node_name=name,
            timeline_label=f"{name} = Conv2D(x)" if name == "a" else "",
            all_start_micros=start,
            all_end_rel_micros=duration,
        )
    heading, *events = json.loads(to_chrome_trace(stats))["traceEvents"]
    assert heading["args"] == {"name": "/cpu:0"}
    assert [(e["name"], e["ts"], e["dur"], e["tid"]) for e in events] == [
        ("Conv2D", 8, 4, 0),
        ("b", 10, 5, 1),
        ("c", 12, 1, 0),
    ]


class Measured(NamedTuple):
    """The files that ``benchmark`` has written, and its output."""

    folder: pathlib.Path
    out: str
    num_calls: List[int]
    records: List[Dict[str, Any]]


class _Counter(tf.train.SessionRunHook):
    """Counts the steps of a session."""

    def __init__(self, counts: List[int]):
        self._counts = counts
        counts.append(0)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._counts[-1] += 1


@pytest.fixture
def scratch(tmp_path: pathlib.Path, monkeypatch: Any) -> Iterator[pathlib.Path]:
    """Return the folder of temporary files; a benchmark must remove its own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.glob("alexnet-*")) == []


@pytest.fixture(scope="module")
def measured(data_dir: str, tmp_path_factory: Any) -> Measured:
    """Measure everything once, for a run that has taken 6 steps."""
    folder = tmp_path_factory.mktemp("measured")
    config = json.loads(json.dumps(tiny.config().to_dict()))
    config["data"]["path"] = data_dir
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(json.dumps({"config": config}))
    counts: List[int] = []
    group_hooks = job.group_hooks

    def counting(*arguments: Any) -> List[tf.train.SessionRunHook]:
        return [*group_hooks(*arguments), _Counter(counts)]

    words = ["benchmark", f"--model_dir={folder / 'run'}", "--train_steps=5"]
    words += ["--warmup_steps=2", f"--output={folder / 'a.jsonl'}", "--profile"]
    out = io.StringIO()
    with mock.patch.object(job, "group_hooks", counting):
        with contextlib.redirect_stdout(out):
            assert cli.main(words) == 0
    return Measured(folder, out.getvalue(), counts, read_lines(folder / "a.jsonl"))


def test_every_mode_is_measured_with_both_inputs(measured: Measured) -> None:
    found = [(record["mode"], record["input"]) for record in measured.records]
    modes = ("train", "evaluate", "input")
    assert found == [(m, i) for m in modes for i in ("synthetic", "real")]
    classes = {r["config"]["data"]["synthetic_classes"] for r in measured.records[::2]}
    assert classes == {3}, "the network must be the same with both inputs"


def test_a_line_has_all_that_tells_one_measurement_from_another(
    measured: Measured,
) -> None:
    for record in measured.records:
        assert set(record) == set(FIELDS)
        wrong = [n for n, kind in FIELDS.items() if not isinstance(record[n], kind)]
        assert wrong == []
        speed = record["num_images"] / record["seconds"]
        assert record["images_per_sec"] == pytest.approx(speed, rel=0.01)
        low, high = record["images_per_sec_lowest"], record["images_per_sec_highest"]
        assert 0 < low <= record["images_per_sec"] <= high
        assert record["step_ms_p50"] <= record["step_ms_p90"] <= record["step_ms_p99"]
        share = record["input_wait_share"]
        assert share is None if record["mode"] == "input" else 0 < share < 1


def test_what_was_asked_for_is_what_runs(measured: Measured) -> None:
    # Warm-up, window and traced steps; the input alone is not traced.
    assert measured.num_calls == [12, 12, 12, 12, 7, 7]
    assert {record["num_warmup_steps"] for record in measured.records} == {2}
    assert {record["num_steps"] for record in measured.records} == {5}
    # Of an evaluation of 11 images, the third batch of 4 has 3; it comes twice here.
    num_images = [record["num_images"] for record in measured.records]
    assert num_images == [20, 20, 20, 18, 20, 20]


def test_the_table_shows_each_measurement(measured: Measured) -> None:
    lines = measured.out.splitlines()
    assert (
        "ranks: 1, batch size per rank: 4, image size: 63, steps: 5 after 2" in lines[1]
    )
    for line, record in zip(lines[3:], measured.records):
        assert line.startswith(f"{record['mode']}, {record['input']} ")
        assert f" {record['images_per_sec']:.1f} " in line
    assert len({len(line) for line in lines[2:]}) == 1


def test_the_run_is_not_touched(measured: Measured) -> None:
    assert os.listdir(str(measured.folder / "run")) == ["config.json"]
    assert sorted(os.listdir(str(measured.folder))) == ["a.jsonl", "profile", "run"]


def test_profiles_are_timelines_of_a_step(measured: Measured) -> None:
    names = sorted(os.listdir(str(measured.folder / "profile")))
    modes = ("evaluate", "train")
    assert names == [f"{m}_{i}.json" for m in modes for i in ("real", "synthetic")]
    for name in names:
        trace = json.loads((measured.folder / "profile" / name).read_text())
        events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
        assert all(event["dur"] > 0 for event in events)
        operators = {event["name"] for event in events}
        assert "IteratorGetNext" in operators
        assert any("Conv2D" in operator for operator in operators)
        is_training = any("BackpropFilter" in operator for operator in operators)
        assert is_training == name.startswith("train")


def test_slow_input_shows_in_the_real_job(data_dir: str, scratch: pathlib.Path) -> None:
    train_batches = inputs.train_batches

    def slowly(dataset: Any, data: Any, *others: Any) -> tf.data.Dataset:
        batches = train_batches(dataset, data, *others)
        if data.synthetic:
            return batches

        def wait(label: Any) -> Any:
            time.sleep(0.1)
            return label

        return batches.map(
            lambda images, labels: (images, tf.py_func(wait, [labels], labels.dtype))
        )

    config = tiny.config(data={"path": data_dir})
    with mock.patch.object(inputs, "train_batches", slowly):
        made_up, real = job.benchmark(
            config, "unused", BenchmarkRequest(["train"], 2, 1)
        )
    assert real["input_wait_share"] > made_up["input_wait_share"]


def test_lines_alone_go_to_standard_output(
    scratch: pathlib.Path, capfd: pytest.CaptureFixture
) -> None:
    words = ["benchmark", "input", TINY, "--output=-", "--train_steps=3", "--quiet"]
    assert cli.main(words) == 0
    out, err = capfd.readouterr()
    (line,) = out.splitlines()
    record = json.loads(line)
    assert (record["mode"], record["num_images"]) == ("input", 24)
    assert record["config"]["data"]["synthetic"] is True
    assert err == ""


def test_lines_are_appended(scratch: pathlib.Path, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "lines.jsonl"
    output.write_text('{"mode": "before"}\n')
    words = ["benchmark", "input", TINY, f"--output={output}", "--train_steps=1"]
    assert cli.main(words) == 0
    assert [record["mode"] for record in read_lines(output)] == ["before", "input"]


@pytest.mark.parametrize("output", ["-", ""])
def test_results_that_get_lost_are_an_error(
    output: str, monkeypatch: Any, capfd: pytest.CaptureFixture
) -> None:
    words = ["benchmark", "input", TINY, f"--output={output}", "--train_steps=1"]
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(words) == 3
    assert "error: standard output: No space left on" in capfd.readouterr().err


def test_checking_leaves_no_file(tmp_path: pathlib.Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("line\n")
    check_request(BenchmarkRequest(output=str(old)))
    check_request(BenchmarkRequest(output=str(new)))
    assert old.read_text() == "line\n" and not new.exists()


@pytest.mark.parametrize("code, are_logs_kept", [(0, False), (75, False), (5, True)])
def test_logs_of_ranks_stay_where_they_are_named(
    code: int, are_logs_kept: bool, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = str(tmp_path / "2p.json")
    rank_table.write(rank_table.make(["127.0.0.1"], 2), table)
    words = ["benchmark", TINY, "--device=cpu", f"--rank_table={table}"]
    with mock.patch.object(launch, "run", return_value=code) as run:
        assert cli.main(words) == code
    logs_dir = pathlib.Path(run.call_args[0][4])
    assert logs_dir.parent == tmp_path and logs_dir.exists() == are_logs_kept


def test_results_of_ranks_that_nobody_reads_are_an_error(
    tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    table = str(tmp_path / "2p.json")
    rank_table.write(rank_table.make(["127.0.0.1"], 2), table)
    words = ["benchmark", TINY, "--device=cpu", f"--rank_table={table}", "--output=-"]
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))
    with mock.patch.object(launch, "run", return_value=0):
        assert cli.main(words) == 0
        os.close(reader)
        assert cli.main(words) == 128 + signal.SIGPIPE


MISTAKES: List[Tuple[str, List[str]]] = [
    ("trian", ["'trian'", "train, evaluate, input"]),
    ("train --train_steps=0", ["--train_steps is 0", "at least 1"]),
    ("train --warmup_steps=0", ["--warmup_steps is 0", "at least 1"]),
    ("train --warmup_steps=-3", ["--warmup_steps", "'-3'"]),
    ("train --train_steps=many", ["train.steps", "many"]),
    ("train --output={folder}", ["--output is {folder}", "a file"]),
    ("train --output={folder}/no/a.jsonl", ["--output is {folder}/no/a.jsonl"]),
    ("train --output=/proc/version", ["--output is /proc/version", "a file"]),
    ("train --output=/dev/full", ["--output is /dev/full", "No space"]),
    ("train --model_dir={folder}", ["{folder} has no run"]),
    ("train --data_path={folder}/none", ["{folder}/none", "no such folder"]),
    ("train --learning_rate=1", ["benchmark does not use --learning_rate"]),
    ("a b --train_steps=0 --warmup_steps=0", ["4 problems", "'a'", "'b'"]),
]


@pytest.mark.parametrize("line, parts", MISTAKES, ids=[line for line, _ in MISTAKES])
def test_mistakes_get_one_message(
    line: str,
    parts: List[str],
    scratch: pathlib.Path,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture,
) -> None:
    words = ["benchmark", *line.format(folder=tmp_path).split()]
    code = cli.main(words)
    out, err = capfd.readouterr()
    assert code == (3 if "data_path" in line else 2)
    assert out == "" and err.count("error: ") == 1
    for part in parts:
        assert part.format(folder=tmp_path) in err


def test_loops_of_a_device_are_whole_and_not_traced(
    monkeypatch: Any, scratch: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    npu_double.load(monkeypatch, npu_double.OLD)
    config = tiny.config(
        runtime={"device": "npu"},
        npu={"iterations_per_loop": 4},
        train={"steps": 4, "log_every_steps": 4},
        precision={"loss_scale": "none", "mode": "allow_mix_precision"},
    )
    config.data.synthetic = True
    request = BenchmarkRequest(
        ["train"], 6, 1, str(tmp_path / "a.jsonl"), has_profile=True
    )
    try:
        (record,) = job.benchmark(config, "unused", request)
    finally:
        npu_double.forget()
    assert (record["num_warmup_steps"], record["num_steps"]) == (4, 8)
    assert record["num_images"] == 8 * 4
    assert record["step_ms_p50"] == pytest.approx(
        1000 * record["seconds"] / 8, rel=0.01
    )
    assert record["input_wait_share"] is None
    # The vendor's profiling is asked for; there is no timeline of a step to be had.
    options = json.loads(record["config"]["npu"]["profiling_options"])
    assert options["output"] == str(tmp_path / "profile")
    assert os.listdir(str(tmp_path / "profile")) == []


def test_ranks_are_measured_together(data_dir: str, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed")
    rank_table.write(rank_table.make(["127.0.0.1"], 2), str(tmp_path / "2p.json"))
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-m", "alexnet_estimator", "benchmark"]
    command += [TINY, "--train_steps=3", f"--data_path={data_dir}"]
    subprocess.run(
        [*command, "--rank_table=2p.json", "--output=a.jsonl"],
        cwd=str(tmp_path),
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "TMPDIR": str(tmp_path / "scratch"),
        },
        check=True,
        timeout=120,
    )
    records = read_lines(tmp_path / "a.jsonl")
    assert len(records) == 6
    for record in records:
        assert record["num_ranks"] == 2
        is_evaluation = (record["mode"], record["input"]) == ("evaluate", "real")
        # 11 images are 6 and 5: one batch of 8 on each rank, again and again.
        assert record["num_images"] == 3 * (11 if is_evaluation else 16)
    assert sorted(os.listdir(str(tmp_path))) == ["2p.json", "a.jsonl", "scratch"]
    assert os.listdir(str(tmp_path / "scratch")) == []
