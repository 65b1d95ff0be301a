"""Print the ratios of our cases to their peers, and of a new file to an old one.

    python -m benchmarks.compare NEW.jsonl
    python -m benchmarks.compare OLD.jsonl NEW.jsonl

The exit code is 1 if a ratio is worse than ``docs/performance.md`` promises, or if a
case has to be measured again: no ratio is printed of a case during which other
processes took more than ``MAX_OTHER_CPU_SHARE`` of the machine's CPU time.  If a case
was measured several times, the last line counts.
"""

import argparse
import json
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

# On a busy machine, the same two programs have had a ratio of 0.6 and one of 1.5.
MAX_OTHER_CPU_SHARE = 0.1
Record = Dict[str, Any]
Records = Dict[Tuple[str, str], Record]


class Promise(NamedTuple):
    """A promise of ``docs/performance.md``.

    Attributes:
        benchmark: Name of the benchmark.
        case: Name of our case.
        against: Name of the peer's case, or a number in the unit of our case.
        limit: Promised ratio, which is a minimum if higher values are better and a
            maximum otherwise.
    """

    benchmark: str
    case: str
    against: Union[str, float]
    limit: float


PROMISES = (
    Promise("tf_cnn_step", "ours 1.15-intel", "theirs 1.15-intel", 1.15),
    Promise("tf_cnn_step", "ours 1.15-intel", "theirs with AVX2 1.15-intel", 1.0),
    Promise("tf_cnn_step", "ours 2.15", "theirs 2.15", 1.0),
    Promise("two_tower_step", "ours 1.15-intel", "plain 1.15", 1.4),
    Promise("two_tower_step", "ours 1.15-intel", "plain 1.15-intel", 1.0),
    Promise("two_tower_step", "ours 2.15", "plain 1.15", 2.0),
    Promise("two_tower_step", "ours 2.15", "plain 2.15", 1.0),
    Promise("real_input", "real 1.15-intel", "synthetic 1.15-intel", 0.97),
    Promise("real_input", "real 2.15", "synthetic 2.15", 0.97),
    Promise("input_wall", "ours 1.15-intel", "naive 1.15", 3.0),
    Promise("input_per_core", "ours 1.15-intel", "libjpeg-turbo", 0.5),
    Promise("input_augmented", "everything 1.15-intel", "paper 1.15-intel", 0.7),
    Promise("conversion", "ours 2 processes", "loop", 1.9),
    Promise("ranks", "2x1 1.15-intel", "1x2 1.15-intel", 0.95),
    Promise("start", "train 1.15-intel", 8.0, 1.0),
    Promise("start", "end 1.15-intel", 3.0, 1.0),
    Promise("start", "--help 1.15-intel", 0.5, 1.0),
    Promise("start", "rank_table check 1.15-intel", 0.5, 1.0),
    Promise("memory", "peak 1.15-intel", "computed", 1.3),
)


class Row(NamedTuple):
    """A promise and the ratio that was measured."""

    promise: Promise
    ratio: float
    higher_is_better: bool

    @property
    def is_kept(self) -> bool:
        """Return whether the ratio is as promised or better."""
        if self.higher_is_better:
            return self.ratio >= self.promise.limit
        return self.ratio <= self.promise.limit


def read(path: str) -> Records:
    """Return the last line of each case, by benchmark and case."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    return {(line["benchmark"], line["case"]): line for line in lines}


def is_disturbed(record: Record) -> bool:
    """Return whether other processes took too much CPU time during the benchmark."""
    return bool(record.get("other_cpu_share", 0) > MAX_OTHER_CPU_SHARE)


def check(records: Records, promises: Sequence[Promise] = PROMISES) -> List[Row]:
    """Return a row for each promise whose cases were measured."""
    rows = []
    for promise in promises:
        ours = records.get((promise.benchmark, promise.case))
        base = _base(records, promise)
        if ours is not None and base is not None:
            rows.append(Row(promise, ours["value"] / base, ours["higher_is_better"]))
    return rows


def changes(old: Records, new: Records) -> Dict[Tuple[str, str], float]:
    """Return the improvement of each case as a ratio; values above 1 are better."""
    ratios = {}
    for key in new:
        if key in old:
            ratio = new[key]["value"] / old[key]["value"]
            ratios[key] = ratio if new[key]["higher_is_better"] else 1 / ratio
    return ratios


def _base(records: Records, promise: Promise) -> Optional[float]:
    """Return the value with which our case is compared."""
    if not isinstance(promise.against, str):
        return promise.against
    record = records.get((promise.benchmark, promise.against))
    return None if record is None else float(record["value"])


def _promise_text(row: Row) -> List[str]:
    promise = row.promise
    unit = "" if isinstance(promise.against, str) else " s"
    return [
        promise.benchmark,
        f"{promise.case} / {promise.against}{unit}",
        f"{row.ratio:.3f}",
        f"{'>=' if row.higher_is_better else '<='} {promise.limit:g}",
        "" if row.is_kept else "WORSE than promised",
    ]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Print the ratios of the files on the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="[OLD] NEW")
    files = parser.parse_args(arguments).files
    if len(files) > 2:
        parser.error("give one file or two")
    measured = [read(file) for file in files]
    disturbed = {
        f"{file}: {' '.join(key)}: {record['other_cpu_share']:.0%}"
        for file, records in zip(files, measured)
        for key, record in records.items()
        if is_disturbed(record)
    }
    old, new = (
        {key: record for key, record in records.items() if not is_disturbed(record)}
        for records in (measured[0], measured[-1])
    )
    everything = [record for records in measured for record in records.values()]
    processors = {record.get("cpu_model", "an unknown CPU") for record in everything}
    print("measured on:", ", ".join(sorted(processors)))
    if len(files) == 2:
        ratios = changes(old, new)
        _print_table(
            [("benchmark", "case", "new / old, above 1 is better")]
            + [(*key, f"{ratio:.3f}") for key, ratio in ratios.items()]
        )
        print()
    rows = check(new)
    header = ["benchmark", "case / against", "ratio", "promised", ""]
    _print_table([header, *map(_promise_text, rows)])
    if disturbed:
        print("\nMeasure again: other processes took too much of the CPU time during")
        print("\n".join(sorted(disturbed)))
    return 0 if all(row.is_kept for row in rows) and not disturbed else 1


if __name__ == "__main__":
    sys.exit(main())
