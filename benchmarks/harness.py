"""The functions that all benchmarks share: alternating cases, and lines of JSON.

A case is a function that measures once and returns a number.  The cases of a benchmark
alternate (A B A B), so that a machine whose speed changes affects all of them alike.
The value of a case is the median.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from alexnet_estimator import locks, machine
from alexnet_estimator.console import note

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
IMAGES_PER_SEC = "images/s"
PROBE = """
import json, platform, sys
import numpy, tensorflow.compat.v1 as tf
print(json.dumps({
    "python": platform.python_version(),
    "numpy": numpy.__version__,
    "tensorflow": tf.__version__,
    "tensorflow_build": tf.version.GIT_VERSION + ", " + tf.version.COMPILER_VERSION,
}))
"""
Record = Dict[str, Any]
Measure = Callable[[], float]


class Engine(NamedTuple):
    """An interpreter with a TensorFlow, which has a name of ``ALEXNET_TF``."""

    name: str
    python: str


class Kind(NamedTuple):
    """The name of a benchmark and the meaning of its values."""

    benchmark: str
    unit: str = IMAGES_PER_SEC
    higher_is_better: bool = True


def make_parser(doc: str, rounds: int = 2) -> argparse.ArgumentParser:
    """Return a parser with the flags that all benchmarks have.

    Args:
        doc: Docstring of the script.
        rounds: Default number of times that each case is run.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, help="file of the measurements")
    parser.add_argument("--rounds", type=int, default=rounds, help="runs of each case")
    parser.add_argument(
        "--engine",
        dest="engines",
        action="append",
        type=parse_engine,
        metavar="NAME[=PYTHON]",
        help="1.15-intel, 1.15 or 2.15, and its interpreter if it is not in .venv; can "
        "be repeated; default: 1.15-intel",
    )
    return parser


def add_step_flags(
    parser: argparse.ArgumentParser, steps: int, batch_size: int = 100
) -> None:
    """Add the flags of benchmarks that time steps, with these defaults."""
    parser.add_argument("--steps", type=int, default=steps, help="measured steps")
    parser.add_argument("--batch_size", type=int, default=batch_size, help="per rank")


def step_flags(options: argparse.Namespace, num_warmup: int = 2) -> List[str]:
    """Return the flags of ``add_step_flags`` for the subcommand ``benchmark``."""
    return [
        f"--batch_size={options.batch_size}",
        f"--train_steps={options.steps}",
        f"--warmup_steps={num_warmup}",
    ]


def plain_command(engine: Engine, options: argparse.Namespace) -> List[str]:
    """Return the command of ``plain_alexnet.py`` for the same batch and steps."""
    flags = [f"--batch_size={options.batch_size}", f"--steps={options.steps}"]
    return [engine.python, "benchmarks/plain_alexnet.py", *flags]


def parse_engine(text: str) -> Engine:
    """Read ``NAME`` or ``NAME=PYTHON``."""
    name, _, python = text.partition("=")
    return Engine(name, python or str(REPOSITORY / ".venv" / name / "bin" / "python"))


def engines_of(options: argparse.Namespace) -> List[Engine]:
    """Return the engines that the flags name, or the default one."""
    return options.engines or [parse_engine("1.15-intel")]


def run_by_turns(cases: Mapping[str, Measure], rounds: int) -> Dict[str, List[float]]:
    """Run all cases ``rounds`` times in alternation, and return the values of each."""
    values: Dict[str, List[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, measure in cases.items():
            values[name].append(measure())
            note(f"round {number + 1}: {name}: {values[name][-1]:.4g}")
    return values


def append(
    output: str, kind: Kind, case: str, values: List[float], **more: Any
) -> None:
    """Append the line of a case: its value (the median), all values, the machine.

    Args:
        output: Path of the file.
        kind: Meaning of the values.
        case: Name of the case.
        values: Values, one for each round.
        more: Further fields, e.g. ``versions``.
    """
    record = {
        "benchmark": kind.benchmark,
        "case": case,
        "value": round(statistics.median(values), 4),
        "unit": kind.unit,
        "higher_is_better": kind.higher_is_better,
        "values": [round(value, 4) for value in values],
        "time_secs": round(time.time()),
        **describe_machine(),
        **more,
    }
    locks.append_bytes(output, json.dumps(record).encode() + b"\n")


def run_and_append(
    options: argparse.Namespace,
    kind: Kind,
    cases: Mapping[str, Measure],
    versions: Mapping[str, Any],
) -> Dict[str, List[float]]:
    """Run cases in alternation and append their lines.

    Args:
        options: Parsed flags.
        kind: Meaning of the values.
        cases: Cases by name.
        versions: Versions of the engine of each case, by its name; see ``versions_of``.
    """
    values = run_by_turns(cases, options.rounds)
    for name in cases:
        append(options.output, kind, name, values[name], versions=versions[name])
    return values


def versions_of(engine: Engine) -> Dict[str, str]:
    """Return the versions of Python, NumPy and TensorFlow, and its build."""
    versions: Dict[str, str] = json.loads(run([engine.python, "-c", PROBE]))
    return versions


def describe_machine() -> Record:
    """Return the processor, the cores that may be used, and the load of others.

    ``other_cpu_share`` is the share of the machine's CPU time that other processes took
    since this benchmark started.  ``compare.py`` prints no ratio if it is too large.
    """
    return {
        "cpu_model": machine.cpu_model(),
        "num_cores": machine.num_cores(),
        "other_cpu_share": round(other_cpu_share(_START, read_cpu_secs()), 3),
    }


class CpuSecs(NamedTuple):
    """CPU seconds since the machine was started.

    Attributes:
        total: Seconds of all cores, whether they were idle or not.
        busy: Seconds in which a core did something, or another virtual machine had it.
        ours: Seconds of this process and of its children that have ended.
    """

    total: float
    busy: float
    ours: float


def read_cpu_secs() -> CpuSecs:
    """Read the CPU time of the machine (``/proc/stat``, see proc(5)) and of us."""
    with open("/proc/stat", encoding="ascii") as file:
        # user, nice, system, idle, iowait, irq, softirq, steal; guest is part of user.
        ticks = [int(word) for word in file.readline().split()[1:9]]
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ours = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    per_sec = os.sysconf("SC_CLK_TCK")
    idle = ticks[3] + ticks[4]
    return CpuSecs(sum(ticks) / per_sec, (sum(ticks) - idle) / per_sec, ours)


def other_cpu_share(start: CpuSecs, end: CpuSecs) -> float:
    """Return the share of the machine's CPU time that other processes took."""
    total, busy, ours = (after - before for before, after in zip(start, end))
    return max(0.0, busy - ours) / max(total, 1e-9)


_START = read_cpu_secs()


def measure_job(engine: Engine, *arguments: str, **variables: str) -> List[Record]:
    """Run the subcommand ``benchmark`` and return the lines that it writes.

    Args:
        engine: Engine that runs it.
        arguments: Modes and flags.
        variables: Additional environment variables.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "lines.jsonl")
        run_job(engine, "benchmark", *arguments, f"--output={output}", **variables)
        with open(output, encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def measure_step(engine: Engine, *flags: str, **variables: str) -> float:
    """Return the images/s of our training step with synthetic images.

    Args:
        engine: Engine that runs it.
        flags: Flags of the subcommand ``benchmark``.
        variables: Additional environment variables.
    """
    (record,) = measure_job(engine, "train", *flags, **variables)
    return float(record["images_per_sec"])


def run_job(engine: Engine, *words: str, **variables: str) -> str:
    """Run ``python -m alexnet_estimator`` and return its standard output."""
    return run([engine.python, "-m", "alexnet_estimator", *words], **variables)


def run(command: Sequence[str], **variables: str) -> str:
    """Run a command in the repository and return its standard output.

    Raises:
        SystemExit: The command failed; the message has the end of its output.
    """
    done = subprocess.run(
        command,
        cwd=str(REPOSITORY),
        env=_environment(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    if done.returncode:
        text = (done.stdout + done.stderr)[-2000:]
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{text}")
    return done.stdout


def measure_process(command: Sequence[str]) -> Tuple[float, float]:
    """Run a command in the repository and discard its output.

    Returns:
        The wall time in seconds, and the peak of the resident set of its largest
        process in MiB.

    Raises:
        SystemExit: The command failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=str(REPOSITORY),
        env=_environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # resource.getrusage would return the maximum over all children so far.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        sys.exit(f"{' '.join(command)} failed; run it to see why")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def _environment(variables: Mapping[str, str]) -> Dict[str, str]:
    """Return the environment of a process that can import our package."""
    paths = filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        **variables,
    }
