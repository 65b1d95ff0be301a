"""When steps ended and what a traced step did: the raw data of ``benchmark``."""

import time
from typing import Any, Callable, List, NamedTuple, Optional

from alexnet_estimator.engine.graph_mode import tf

Clock = Callable[[], float]


class CallCounts(NamedTuple):
    """How many calls of ``session.run`` serve which purpose, in this order.

    Attributes:
        num_warmup: Number of calls that are not measured, at least 1: the first one
            compiles and fills buffers.
        num_measured: Number of calls in the measured window, at least 1.
        num_traced: Number of calls after the window whose operations are traced, which
            slows them down.
    """

    num_warmup: int
    num_measured: int
    num_traced: int

    @property
    def num_calls(self) -> int:
        """Number of all calls."""
        return sum(self)


class Tick(NamedTuple):
    """The end of a call.

    Attributes:
        wall_secs: Seconds on a clock that never goes back.
        cpu_secs: Seconds that all threads of this process have computed so far.
    """

    wall_secs: float
    cpu_secs: float


class TimingHook(tf.train.SessionRunHook):
    """Notes the end of every call, traces the last ones, then ends the session.

    It has to be the last hook, so that the work of the others counts as part of a step.

    Attributes:
        ticks: Beginning of the window (the end of the warm-up) and the ends of the
            measured calls.
        traces: StepStats of the traced calls.
        traced_secs: Wall time of the traced calls.
        waiting_secs: Part of that time in which ``IteratorGetNext`` waited.
    """

    def __init__(
        self,
        counts: CallCounts,
        trace_level: int = tf.RunOptions.SOFTWARE_TRACE,
        wall_clock: Clock = time.perf_counter,
        cpu_clock: Clock = time.process_time,
    ):
        """Time a session.

        Args:
            counts: Numbers of calls.
            trace_level: Trace level of RunOptions; only FULL_TRACE sees the kernels of
                a GPU.
            wall_clock: Clock of wall time, in seconds.
            cpu_clock: Clock of the time that all threads have computed, in seconds.
        """
        self._counts, self._trace_level = counts, trace_level
        self._wall_clock, self._cpu_clock = wall_clock, cpu_clock
        self._ends: List[Tick] = []
        self.traces: List[Any] = []
        self.traced_secs = self.waiting_secs = 0.0

    @property
    def ticks(self) -> List[Tick]:
        """Return the beginning of the window and the ends of its calls."""
        first = self._counts.num_warmup - 1
        return self._ends[first : first + self._counts.num_measured + 1]

    def begin(self) -> None:
        """Find the operations that wait for input."""
        operations = tf.get_default_graph().get_operations()
        self._waiting = {op.name for op in operations if op.type == "IteratorGetNext"}

    def before_run(self, run_context: Any) -> Optional[tf.train.SessionRunArgs]:
        """Request a trace after the window."""
        if not self._is_tracing():
            return None
        options = tf.RunOptions(trace_level=self._trace_level)
        return tf.train.SessionRunArgs(None, options=options)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Note the end of a call."""
        is_traced = self._is_tracing()
        self._ends.append(Tick(self._wall_clock(), self._cpu_clock()))
        if is_traced:
            step_stats = run_values.run_metadata.step_stats
            self.traces.append(step_stats)
            self.traced_secs += self._ends[-1].wall_secs - self._ends[-2].wall_secs
            self.waiting_secs += sum(
                node.all_end_rel_micros / 1e6
                for device in step_stats.dev_stats
                for node in device.node_stats
                if node.node_name in self._waiting
            )
        if len(self._ends) == self._counts.num_calls:
            run_context.request_stop()

    def _is_tracing(self) -> bool:
        return len(self._ends) >= self._counts.num_warmup + self._counts.num_measured
