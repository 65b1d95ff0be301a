"""The benchmark job, which times training, evaluation and input.

Each measurement runs one session with the model function, the input, the hooks and the
runtime of the training job, but without saving and reports.  Weights are random; only
``frozen_until`` of the section ``warm_start`` has an effect.  The first steps are a
warm-up, the next ones are measured, and a few more are traced.  ``figures`` defines the
numbers.
"""

import contextlib
import dataclasses
import os
import resource
import tempfile
import time
from typing import Any, Callable, ContextManager, List

from alexnet_estimator import disk, files, inputs, locks
from alexnet_estimator.config import Config
from alexnet_estimator.console import STDOUT, note, show
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import StopRequested
from alexnet_estimator.hooks.heartbeat import Heartbeat
from alexnet_estimator.hooks.metrics_log import MetricsLog
from alexnet_estimator.hooks.progress import StepClock
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.hooks.stopping import StopRequest
from alexnet_estimator.hooks.timing import CallCounts, TimingHook
from alexnet_estimator.jobs.benchmark import figures
from alexnet_estimator.jobs.benchmark.figures import BenchmarkRecord
from alexnet_estimator.jobs.benchmark.request import (
    MODES,
    BenchmarkRequest,
    check_request,
)
from alexnet_estimator.jobs.benchmark.timeline import to_chrome_trace
from alexnet_estimator.jobs.evaluate import evaluate_sums, evaluation_reader
from alexnet_estimator.jobs.session import Run, explaining_data_errors, open_run
from alexnet_estimator.jobs.steps import group_hooks, run_steps, watching_hooks
from alexnet_estimator.model_fn import Training
from alexnet_estimator.records import manifest
from alexnet_estimator.runtime import find_accelerator, make_runtime, settle_device
from alexnet_estimator.runtime.base import Runtime, session_config

NUM_TRACED_STEPS = 5


def benchmark(
    config: Config,
    model_dir: str,
    request: BenchmarkRequest = BenchmarkRequest(),
    watch: Callable[[Runtime], ContextManager[Any]] = contextlib.nullcontext,
) -> List[BenchmarkRecord]:
    """Measure training, evaluation and input with synthetic and with real data.

    Args:
        config: Configuration.  Without ``data.path`` there is synthetic data only;
            otherwise both have the same number of classes.
        model_dir: Folder of a run, which is neither read nor written.  Pictures are
            converted beside it, as in training.
        request: Measurements to make.
        watch: Context that ends this process if it hangs.

    Returns:
        The measurements of this rank.

    Raises:
        UserError: The request, the configuration, the device or the data are wrong.
    """
    check_request(request)
    records = []
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="alexnet-benchmark-")
        )
        stack.enter_context(disk.explaining_errors(scratch))
        stop = stack.enter_context(StopRequest().listening())
        runs = _open_runs(config, model_dir, scratch, request)
        stack.enter_context(watch(runs[0].runtime))
        for run in runs:
            stack.enter_context(manifest.keep_unchanged(run.dataset))
        heartbeat = Heartbeat(runs[0].runtime.heartbeat)
        is_chief = runs[0].runtime.is_chief
        for mode in request.modes or MODES:
            for run in runs:
                measurement = _Measurement(run, request, stop, heartbeat, mode)
                if is_chief:
                    note(f"measuring {mode}, {measurement.source} ...")
                records.append(measurement.run())
                if is_chief:
                    _write(measurement, request, records[-1])
        if is_chief and request.output != STDOUT:
            show(figures.to_table(records))
    return records


def _open_runs(
    config: Config, model_dir: str, scratch: str, request: BenchmarkRequest
) -> List[Run]:
    """Return a run with synthetic data, and one with real data if there is any."""
    if request.has_profile:
        _prepare_profile(config, request.profile_dir)
    runtime = make_runtime(config)
    synthetic = Config(config.to_dict())
    synthetic.data.synthetic, synthetic.data.path = True, ""
    runs = []
    if config.data.path:
        real = open_run(config, model_dir, runtime, verb="benchmark")
        # With another number of classes, the last layer would have another size, and
        # the two speeds could not be compared.
        synthetic.data.synthetic_classes = real.dataset.num_classes
        runs.append(dataclasses.replace(real, model_dir=scratch))
    return [open_run(synthetic, scratch, runtime, verb="benchmark"), *runs]


def _prepare_profile(config: Config, folder: str) -> None:
    """Create the folder, and enable the profiling of the accelerator's vendor."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise disk.error_at(folder, "cannot be created", error) from error
    device = settle_device(config.runtime.device)
    find_accelerator(device).prepare_profile(config, folder)


class _Measurement:
    """One session, which measures one mode with one kind of data.

    Attributes:
        source: Kind of the data, ``synthetic`` or ``real``.
        mode: One of ``MODES``.
        timing: Hook that times the session.
    """

    def __init__(
        self,
        run: Run,
        request: BenchmarkRequest,
        stop: StopRequest,
        heartbeat: Heartbeat,
        mode: str,
    ):
        self._run, self.mode = run, mode
        self._stop, self._heartbeat = stop, heartbeat
        self.source = "synthetic" if run.config.data.synthetic else "real"
        # Only training runs loops of several steps on the device.
        loop = run.loop.num_steps if mode == "train" else 1
        level = run.runtime.trace_level
        is_traced = level != tf.RunOptions.NO_TRACE and mode != "input"
        self._steps_per_call = loop
        self._counts = CallCounts(
            -(-request.num_warmup_steps // loop),
            -(-request.num_steps // loop),
            NUM_TRACED_STEPS if is_traced else 0,
        )
        self.timing = TimingHook(self._counts, level)

    def run(self) -> BenchmarkRecord:
        """Run the session and return its figures."""
        run, phase = self._run, "train"
        if self.mode == "train":
            training = Training(run.learning_rate_plan, 1.0, self._make_training_hooks)
            run_steps(run, training, first_batch=0, last_step=None)
        elif self.mode == "evaluate":
            phase = "evaluate"
            evaluate_sums(run, None, self._make_hooks(phase), self._counts.num_calls)
        else:
            self._read(self._make_hooks(phase))
        if self._stop.is_agreed:
            raise StopRequested(f"stopped on request while measuring {self.mode}")
        return self._describe()

    def _make_training_hooks(
        self, tensors: StepTensors
    ) -> List[tf.train.SessionRunHook]:
        run = self._run
        log = MetricsLog(run.model_dir, run.runtime.is_chief)
        watching = watching_hooks(run, tensors, log, StepClock(), is_shown=False)
        return [*watching, *self._make_hooks("train")]

    def _make_hooks(self, phase: str) -> List[tf.train.SessionRunHook]:
        together = group_hooks(self._run, self._heartbeat, self._stop, phase)
        return [*together, self.timing]

    def _read(self, hooks: List[tf.train.SessionRunHook]) -> None:
        """Read batches of training and discard them."""
        run = self._run
        options = session_config(run.config.runtime.num_threads, run.runtime.device)
        with tf.Graph().as_default(), explaining_data_errors(run):
            batches = inputs.train_batches(run.dataset, run.config.data, run.reader, 0)
            iterator = tf.data.make_initializable_iterator(batches)
            tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
            # Nothing is fetched, because training does not copy batches to Python.
            take = tf.group(*tf.nest.flatten(iterator.get_next()))
            creator = tf.train.ChiefSessionCreator(config=options)
            with tf.train.MonitoredSession(creator, hooks) as session:
                while not session.should_stop():
                    session.run(take)

    def _describe(self) -> BenchmarkRecord:
        """Return the figures, with everything that is needed to compare them."""
        run, timing, config = self._run, self.timing, self._run.config
        ticks = timing.ticks
        speed = figures.speed_figures(ticks, self._num_images(), self._steps_per_call)
        cpu_secs = ticks[-1].cpu_secs - ticks[0].cpu_secs
        all_cpu_secs = float(run.runtime.gather([cpu_secs]).sum())
        share = timing.waiting_secs / timing.traced_secs if timing.traces else None
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "mode": self.mode,
            "input": self.source,
            "time_secs": round(time.time(), 3),
            "num_warmup_steps": self._counts.num_warmup * self._steps_per_call,
            **speed,
            "images_per_cpu_sec": round(speed["num_images"] / all_cpu_secs, 2),
            "input_wait_share": None if share is None else round(share, 4),
            "peak_rss_mib": round(peak_kib / 1024, 1),
            "num_ranks": run.runtime.num_ranks,
            "batch_size_per_rank": config.train.batch_size_per_rank,
            "image_size": config.data.image_size,
            "device": run.runtime.device,
            **figures.describe_machine(config.runtime.num_threads),
            "config": config.to_dict(),
        }

    def _num_images(self) -> List[int]:
        """Return the number of images of all ranks in each measured call."""
        first, count = self._counts.num_warmup, self._counts.num_measured
        if self.mode != "evaluate":
            return [self._run.global_batch_size * self._steps_per_call] * count
        reader = evaluation_reader(self._run)
        total = self._run.dataset.splits["validation"].num_images
        steps = range(first, first + count)
        return [figures.images_in_eval_step(step, total, reader) for step in steps]


def _write(
    measurement: _Measurement, request: BenchmarkRequest, record: BenchmarkRecord
) -> None:
    """Write the line of JSON, and the timeline of the last traced step."""
    line, traces = figures.to_line(record), measurement.timing.traces
    if request.output == STDOUT:
        show(line.rstrip())
    elif request.output:
        locks.append_bytes(request.output, line.encode())
    if request.has_profile and traces:
        name = f"{measurement.mode}_{measurement.source}.json"
        path = os.path.join(request.profile_dir, name)
        files.write_bytes(path, to_chrome_trace(traces[-1]).encode())
