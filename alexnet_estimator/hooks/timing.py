"""The raw data of ``benchmark``: times of steps, and traces."""

import time
from typing import Any, Callable, List, NamedTuple, Optional

from alexnet_estimator.engine.graph_mode import tf

Clock = Callable[[], float]


class CallCounts(NamedTuple):
    """Numbers of calls of ``session.run`` in the three phases of a measurement.

    Attributes:
        num_warmup: Number of calls before the measured window, at least 1.  The first
            call compiles the graph and fills buffers.
        num_measured: Number of calls in the measured window, at least 1.
        num_traced: Number of traced calls after the window.  Tracing makes them slower.
    """

    num_warmup: int
    num_measured: int
    num_traced: int

    @property
    def num_calls(self) -> int:
        """Return the number of all calls."""
        return sum(self)


class Tick(NamedTuple):
    """The end of a call.

    Attributes:
        wall_secs: Time of a monotonic clock in seconds.
        cpu_secs: CPU time of all threads of this process in seconds.
    """

    wall_secs: float
    cpu_secs: float


class TimingHook(tf.train.SessionRunHook):
    """Records the end of every call, traces the last ones, then ends the session.

    This must be the last hook, so that the work of the others counts as part of a step.

    Attributes:
        traces: StepStats of the traced calls.
        traced_secs: Wall time of the traced calls in seconds.
        waiting_secs: Time in seconds that ``IteratorGetNext`` waited in these calls.
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
            trace_level: Trace level of RunOptions.  FULL_TRACE is necessary for the
                kernels of a GPU.
            wall_clock: Clock of wall time in seconds.
            cpu_clock: Clock of the CPU time of all threads in seconds.
        """
        self._counts, self._trace_level = counts, trace_level
        self._wall_clock, self._cpu_clock = wall_clock, cpu_clock
        self._ends: List[Tick] = []
        self.traces: List[Any] = []
        self.traced_secs = self.waiting_secs = 0.0

    @property
    def ticks(self) -> List[Tick]:
        """Return the beginning of the measured window and the ends of its calls."""
        first = self._counts.num_warmup - 1
        return self._ends[first : first + self._counts.num_measured + 1]

    def begin(self) -> None:
        """Find the operations that wait for input."""
        operations = tf.get_default_graph().get_operations()
        self._waiting = {op.name for op in operations if op.type == "IteratorGetNext"}

    def before_run(self, run_context: Any) -> Optional[tf.train.SessionRunArgs]:
        """Request a trace if the measured window has ended."""
        if not self._is_tracing():
            return None
        options = tf.RunOptions(trace_level=self._trace_level)
        return tf.train.SessionRunArgs(None, options=options)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Record the end of a call."""
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
