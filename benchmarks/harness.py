"""What all benchmarks share: cases run by turns, and lines of JSON.

A case is a function that measures once and returns a number.  The cases of a benchmark
are run one after the other, then all of them again (A B A B), so that a machine that
gets slower or faster meanwhile does so for each; the value of a case is the median.
"""

import argparse
import json
import os
import pathlib
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
    """An interpreter with a TensorFlow, by the name that ``ALEXNET_TF`` gives it."""

    name: str
    python: str


class Kind(NamedTuple):
    """What the numbers of a benchmark are."""

    benchmark: str
    unit: str = IMAGES_PER_SEC
    higher_is_better: bool = True


def make_parser(doc: str, rounds: int = 2) -> argparse.ArgumentParser:
    """Return a parser with the flags that all benchmarks have.

    Args:
        doc: of the script: its first line says what is measured.
        rounds: how often each case is run, by default.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, help="file to append lines to")
    parser.add_argument("--rounds", type=int, default=rounds, help="of all cases")
    parser.add_argument(
        "--engine",
        dest="engines",
        action="append",
        type=parse_engine,
        metavar="NAME[=PYTHON]",
        help="1.15-intel, 1.15 or 2.15 and its interpreter, by default that of .venv; "
        "can be repeated; default: 1.15-intel",
    )
    return parser


def add_step_flags(
    parser: argparse.ArgumentParser, steps: int, batch_size: int = 100
) -> None:
    """Add the flags of benchmarks that time steps, with these defaults."""
    parser.add_argument("--steps", type=int, default=steps, help="measured in each run")
    parser.add_argument("--batch_size", type=int, default=batch_size, help="of a rank")


def step_flags(options: argparse.Namespace, num_warmup: int = 2) -> List[str]:
    """Return what ``add_step_flags`` has read as flags of the verb ``benchmark``."""
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
    """Run all cases, and again, ``rounds`` times; return what each has measured."""
    values: Dict[str, List[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, measure in cases.items():
            values[name].append(measure())
            note(f"round {number + 1}: {name}: {values[name][-1]:.4g}")
    return values


def append(
    output: str, kind: Kind, case: str, values: List[float], **more: Any
) -> None:
    """Append a case's line: its value (the median), all values, the machine.

    Args:
        output: file.
        kind: what the values are.
        case: the name.
        values: one for each round.
        more: e.g. ``versions``.
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
    """Run cases by turns and append their lines.

    Args:
        options: parsed flags.
        kind: what the cases measure.
        cases: by name.
        versions: of each case's engine, by the case's name; see ``versions_of``.
    """
    values = run_by_turns(cases, options.rounds)
    for name in cases:
        append(options.output, kind, name, values[name], versions=versions[name])
    return values


def versions_of(engine: Engine) -> Dict[str, str]:
    """Return the versions of Python, numpy and TensorFlow, and TensorFlow's build."""
    versions: Dict[str, str] = json.loads(run([engine.python, "-c", PROBE]))
    return versions


def describe_machine() -> Record:
    """Return the machine's processor and the cores that may be used."""
    return {"cpu_model": machine.cpu_model(), "num_cores": machine.num_cores()}


def measure_job(engine: Engine, *arguments: str, **variables: str) -> List[Record]:
    """Run our verb ``benchmark`` and return the lines that it writes.

    Args:
        engine: runs it.
        arguments: modes and flags.
        variables: of the environment, besides what is there.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "lines.jsonl")
        run_job(engine, "benchmark", *arguments, f"--output={output}", **variables)
        with open(output, encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def measure_step(engine: Engine, *flags: str, **variables: str) -> float:
    """Return the images/s of our training step with made-up pictures.

    Args:
        engine: runs it.
        flags: of the verb ``benchmark``.
        variables: of the environment.
    """
    (record,) = measure_job(engine, "train", *flags, **variables)
    return float(record["images_per_sec"])


def run_job(engine: Engine, *words: str, **variables: str) -> str:
    """Run ``python -m alexnet_estimator`` and return its standard output."""
    return run([engine.python, "-m", "alexnet_estimator", *words], **variables)


def run(command: Sequence[str], **variables: str) -> str:
    """Run a command in the repository and return its standard output.

    Raises:
        SystemExit: it failed; with the end of what it has written.
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
    """Run a command in the repository, its output thrown away.

    Returns:
        Its seconds, and the peak of the resident set of the largest of its processes,
        in MiB.

    Raises:
        SystemExit: it failed.
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
    # Unlike resource.getrusage, this knows one child from another.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        sys.exit(f"{' '.join(command)} failed; run it to see why")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def _environment(variables: Mapping[str, str]) -> Dict[str, str]:
    """Return what a process needs to find the package, ours, and ``variables``."""
    paths = filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        **variables,
    }
