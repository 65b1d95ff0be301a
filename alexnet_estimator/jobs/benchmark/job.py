"""How fast the job is: its own steps, evaluation and input, timed; nothing is kept.

Each measurement is a session of its own with the model function, the input, the hooks
and the runtime of the job, but without saving and reports.  Weights are random: of the
section ``warm_start``, only ``frozen_until`` counts.  The first steps are left out, the
next ones make the window that is measured, and behind that, a few are traced.
``figures`` says what each number means.
"""

import contextlib
import dataclasses
import os
import resource
import tempfile
import time
from typing import List, NamedTuple, Sequence

from alexnet_estimator import files, inputs, locks
from alexnet_estimator.config import Config, validate
from alexnet_estimator.console import STDOUT, STDOUT_NAME, note, show
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, StopRequested
from alexnet_estimator.hooks.heartbeat import Heartbeat
from alexnet_estimator.hooks.metrics_log import MetricsLog
from alexnet_estimator.hooks.progress import StepClock
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.hooks.stopping import StopRequest
from alexnet_estimator.hooks.timing import CallCounts, TimingHook
from alexnet_estimator.jobs.benchmark.figures import (
    Record,
    Window,
    describe_machine,
    speed_figures,
    to_line,
    to_table,
)
from alexnet_estimator.jobs.benchmark.timeline import to_chrome_trace
from alexnet_estimator.jobs.evaluate import evaluate_sums, evaluation_reader
from alexnet_estimator.jobs.run import (
    Run,
    explain_data_errors,
    explain_full_disk,
    open_run,
)
from alexnet_estimator.jobs.train import group_hooks, run_steps, watching_hooks
from alexnet_estimator.model_fn import Training
from alexnet_estimator.runtime import find_accelerator, make_runtime, settle_device
from alexnet_estimator.runtime.base import session_config

MODES = ("train", "evaluate", "input")
NUM_WARMUP_STEPS = 5
NUM_STEPS = 20
NUM_TRACED_STEPS = 5


class BenchmarkRequest(NamedTuple):
    """What is to be measured.

    Attributes:
        modes: of ``MODES``; none: all.
        num_steps: measured; rounded up to whole loops of a device.
        num_warmup_steps: before them; rounded up as well.
        output: file to append lines of JSON to; ``-``: print these alone; or empty.
        has_profile: write timelines into ``profile/`` beside the output.
    """

    modes: Sequence[str] = MODES
    num_steps: int = NUM_STEPS
    num_warmup_steps: int = NUM_WARMUP_STEPS
    output: str = ""
    has_profile: bool = False

    @property
    def profile_dir(self) -> str:
        """Where timelines go."""
        folder = "" if self.output == STDOUT else os.path.dirname(self.output)
        return os.path.join(os.path.abspath(folder), "profile")


def check_request(request: BenchmarkRequest) -> None:
    """Refuse what cannot be measured or written.

    Raises:
        ConfigError: all problems.
    """
    problems = [
        f"{mode!r} cannot be measured: choose of {', '.join(MODES)}"
        for mode in request.modes
        if mode not in MODES
    ]
    # The first step compiles, and the window begins at the end of a step.
    counts = {
        "train_steps": request.num_steps,
        "warmup_steps": request.num_warmup_steps,
    }
    problems += [
        f"--{flag} is {count}: must be at least 1"
        for flag, count in counts.items()
        if count < 1
    ]
    problems += _check_output(request.output)
    if problems:
        raise ConfigError(problems, "benchmark")


def _check_output(path: str) -> List[str]:
    """Append nothing to the file: permissions alone do not tell that one can."""
    if path in ("", STDOUT):
        return []
    is_new = not os.path.exists(path)
    try:
        locks.append_bytes(path, b"")
    except OSError as error:
        return [
            f"--output is {path}: {error.strerror}: must be a file that lines can be "
            f"appended to, or {STDOUT} for {STDOUT_NAME}"
        ]
    if is_new:
        with contextlib.suppress(FileNotFoundError):  # Another rank was faster.
            os.remove(os.path.realpath(path))
    return []


def benchmark(
    config: Config, model_dir: str, request: BenchmarkRequest = BenchmarkRequest()
) -> List[Record]:
    """Measure training, evaluation and input with made-up and with the real data.

    Args:
        config: without ``data.path`` there is only made-up data, else both, with the
            same number of classes.
        model_dir: raw pictures are converted beside it, as for training; neither read
            nor written itself.
        request: what to measure.

    Returns:
        The measurements, on rank 0; on the other ranks the same for themselves.

    Raises:
        UserError: what is wrong with request, configuration, device or data.
    """
    validate(config, "benchmark")
    check_request(request)
    records = []
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="alexnet-benchmark-")
        )
        stack.enter_context(explain_full_disk(scratch))
        stop = stack.enter_context(StopRequest().listening())
        runs = _open_runs(config, model_dir, scratch, request)
        heartbeat = Heartbeat(runs[0].runtime.heartbeat)
        for mode in request.modes or MODES:
            for run in runs:
                session = _Session(run, request, stop, heartbeat, mode)
                records.append(session.measure())
        if runs[0].runtime.is_chief and request.output != STDOUT:
            show(to_table(records))
    return records


def images_in_eval_step(step: int, num_images: int, reader: inputs.Reader) -> int:
    """Return the images of all ranks in a step of a repeated evaluation.

    Args:
        step: from 0, over all repetitions.
        num_images: of the split; the last batch of a rank is filled up with others.
        reader: any rank.
    """
    batch = reader.batch_size
    first = step % inputs.num_eval_steps(num_images, reader) * batch
    edges = inputs.part_edges(num_images, reader.num_ranks)
    sizes = [end - start for start, end in zip(edges, edges[1:])]
    return sum(min(batch, max(0, size - first)) for size in sizes)


def _open_runs(
    config: Config, model_dir: str, scratch: str, request: BenchmarkRequest
) -> List[Run]:
    """Open the made-up data and the real, if any, for one runtime."""
    if request.has_profile:
        _prepare_profile(config, request.profile_dir)
    runtime = make_runtime(config)
    made_up = config.copy_and_resolve_references()
    made_up.data.synthetic, made_up.data.path = True, ""
    runs = []
    if config.data.path:
        real = open_run(config, model_dir, runtime)
        # Else the last layer would differ, and some millions of weights with it.
        made_up.data.synthetic_classes = real.dataset.num_classes
        runs.append(dataclasses.replace(real, model_dir=scratch))
    return [open_run(made_up, scratch, runtime), *runs]


def _prepare_profile(config: Config, folder: str) -> None:
    """Make the folder; ask for the profile that the accelerator's vendor offers."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", folder) from error
    device = settle_device(config.runtime.device)
    find_accelerator(device).prepare_profile(config, folder)


class _Session:
    """One measurement."""

    def __init__(
        self,
        run: Run,
        request: BenchmarkRequest,
        stop: StopRequest,
        heartbeat: Heartbeat,
        mode: str,
    ):
        self._run, self._request, self._mode = run, request, mode
        self._stop, self._heartbeat = stop, heartbeat
        # Only training loops on the device.
        loop = run.runtime.steps_per_call if mode == "train" else 1
        level = run.runtime.trace_level
        is_traced = level != tf.RunOptions.NO_TRACE and mode != "input"
        self._steps_per_call = loop
        self._plan = CallCounts(
            -(-request.num_warmup_steps // loop),
            -(-request.num_steps // loop),
            NUM_TRACED_STEPS if is_traced else 0,
        )
        self._timing = TimingHook(self._plan, level)
        self._source = "synthetic" if run.config.data.synthetic else "real"

    def measure(self) -> Record:
        """Run the session; write down and return what was seen."""
        is_chief = self._run.runtime.is_chief
        if is_chief:
            note(f"measuring {self._mode}, {self._source} ...")
        {
            "train": self._train,
            "evaluate": self._evaluate,
            "input": self._read,
        }[self._mode]()
        if self._stop.is_agreed:
            raise StopRequested(f"stopped while measuring {self._mode}, as requested")
        record = self._describe()
        if is_chief:
            self._write(record)
        return record

    def _train(self) -> None:
        run = self._run
        log = MetricsLog(run.model_dir, run.runtime.is_chief)

        def make_hooks(tensors: StepTensors) -> List[tf.train.SessionRunHook]:
            watching = watching_hooks(run, tensors, log, StepClock(), is_shown=False)
            return [*watching, *self._hooks()]

        training = Training(run.learning_rate_plan, 1.0, make_hooks)
        run_steps(run, training, first_step=0, last_step=None)

    def _evaluate(self) -> None:
        evaluate_sums(self._run, None, self._hooks(), self._plan.num_calls)

    def _read(self) -> None:
        """Take batches for training, and do nothing with them."""
        run = self._run
        options = session_config(run.config.runtime.num_threads, run.runtime.device)
        with tf.Graph().as_default(), explain_data_errors(run):
            batches = inputs.train_batches(run.dataset, run.config.data, run.reader, 0)
            iterator = tf.data.make_initializable_iterator(batches)
            tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
            # Nothing is fetched, since the job does not take batches to Python either.
            take = tf.group(*tf.nest.flatten(iterator.get_next()))
            creator = tf.train.ChiefSessionCreator(config=options)
            with tf.train.MonitoredSession(creator, self._hooks()) as session:
                while not session.should_stop():
                    session.run(take)

    def _hooks(self) -> List[tf.train.SessionRunHook]:
        phase = "evaluate" if self._mode == "evaluate" else "train"
        together = group_hooks(self._run, self._heartbeat, self._stop, phase)
        return [*together, self._timing]

    def _describe(self) -> Record:
        """Return all that a reader needs to compare this with another measurement."""
        run, timing = self._run, self._timing
        ticks, config = timing.ticks, run.config
        window = Window(ticks, self._num_images(), self._steps_per_call)
        figures = speed_figures(window)
        cpu_secs = ticks[-1].cpu_secs - ticks[0].cpu_secs
        all_cpu_secs = float(run.runtime.gather([cpu_secs]).sum())
        has_traces = bool(timing.traces)
        share = timing.waiting_secs / timing.traced_secs if has_traces else None
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "mode": self._mode,
            "input": self._source,
            "time_secs": round(time.time(), 3),
            "num_warmup_steps": self._plan.num_warmup * self._steps_per_call,
            **figures,
            "images_per_cpu_sec": round(figures["num_images"] / all_cpu_secs, 2),
            "input_wait_share": None if share is None else round(share, 4),
            "peak_rss_mib": round(peak_kib / 1024, 1),
            "num_ranks": run.runtime.num_ranks,
            "batch_size_per_rank": config.train.batch_size_per_rank,
            "image_size": config.data.image_size,
            "device": run.runtime.device,
            **describe_machine(config.runtime.num_threads),
            "config": config.to_dict(),
        }

    def _num_images(self) -> List[int]:
        """Return the images of all ranks in each measured call."""
        first, count = self._plan.num_warmup, self._plan.num_measured
        if self._mode != "evaluate":
            return [self._run.global_batch_size * self._steps_per_call] * count
        reader = evaluation_reader(self._run)
        total = self._run.dataset.splits["validation"].num_images
        steps = range(first, first + count)
        return [images_in_eval_step(step, total, reader) for step in steps]

    def _write(self, record: Record) -> None:
        request = self._request
        if request.output == STDOUT:
            show(to_line(record).rstrip())
        elif request.output:
            locks.append_bytes(request.output, to_line(record).encode())
        if request.has_profile and self._timing.traces:
            name = f"{self._mode}_{self._source}.json"
            text = to_chrome_trace(self._timing.traces[-1])
            files.write_bytes(os.path.join(request.profile_dir, name), text.encode())
