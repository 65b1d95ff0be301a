"""The command line's words: the table of flags, their parsing and the help.

Flags and ``--config.section.field=value`` are all that a user can say; the only place
that imports ``absl.flags``.
"""

import dataclasses
import textwrap
from typing import Dict, List, Mapping, Sequence, Tuple

from absl import flags

from alexnet_estimator.config import describe_fields
from alexnet_estimator.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        doc: meaning, unit, default and an example.
        verbs: that read it.
        field: of the configuration that it sets, if any; parsed and checked like it.
        alias: another name.
        is_switch: needs no value.
    """

    doc: str
    verbs: str
    field: str = ""
    alias: str = ""
    is_switch: bool = False


DOC_COLUMNS = 56  # Of the 80 that a terminal has.
RUNS = "train evaluate benchmark"
ALL = RUNS + " predict export report convert verify rank_table"

# All flags, by group.
FLAG_GROUPS: Dict[str, Dict[str, Flag]] = {
    "what to work on": {
        "model_dir": Flag(
            "folder of the run; default of train and benchmark: runs/CONFIG; otherwise "
            "required; e.g. runs/cats_vs_dogs",
            RUNS + " predict export",
        ),
        "data_path": Flag(
            "converted data, a folder or a zip of pictures, ImageNet TFRecords; "
            "default of train: sample:mono_poly, of benchmark: made-up pictures only; "
            "e.g. /data/cats_vs_dogs",
            RUNS + " export convert verify",
            field="data.path",
            alias="data_dir",
        ),
        "config": Flag(
            "a file of configs/, which is Python code, or a run's config.json; "
            "default: that of the run, or configs/default.py; of train without "
            "--data_path: configs/quickstart.py; e.g. configs/cats_vs_dogs.py",
            "train convert verify benchmark",
        ),
        "output": Flag(
            "folder or file to write; default of predict: - (standard output), of "
            "report: report.html in the run, of benchmark: a table only (to a file, it "
            "appends a line of JSON for each measurement; -: prints these alone); "
            "otherwise required; e.g. rows.jsonl",
            "predict export convert report rank_table benchmark",
        ),
    },
    "how to train": {
        "train_steps": Flag(
            "global steps in all, restarts included; default: by epochs; of benchmark: "
            "those measured, default 20; e.g. 2000",
            "train benchmark",
            field="train.steps",
        ),
        "epoch": Flag(
            "the same in epochs; default 90; e.g. 35", "train", "train.epochs", "epochs"
        ),
        "batch_size": Flag(
            "images in a step of one rank; default 100; e.g. 128; export: fixed, "
            "e.g. 1, default any",
            RUNS + " predict export",
            "train.batch_size_per_rank",
        ),
        "learning_rate": Flag(
            "at its peak; default 0.01; e.g. 0.005", "train", "optim.learning_rate"
        ),
        "precision_mode": Flag(
            "auto, mixed, float32 or a name of the vendor's; default auto; e.g. mixed",
            "train benchmark",
            "precision.mode",
        ),
        "loss_scale": Flag(
            "auto, dynamic, none or a number; default auto; e.g. 1024",
            "train benchmark",
            "precision.loss_scale",
        ),
        "seed": Flag(
            "of weights, order, augmentation and dropout; default 0; e.g. 1",
            "train",
            "train.seed",
        ),
        "warm_start_from": Flag(
            "a run's folder, a checkpoint's path prefix or bvlc_alexnet.npy, whose "
            "weights a new run starts with; default: random; e.g. runs/quickstart",
            "train",
            "warm_start.path",
        ),
        "dry_run": Flag(
            "check and show what would be done; default: do it", "train", is_switch=True
        ),
    },
    "where to run": {
        "device": Flag(
            "auto, cpu, gpu or npu; default auto; e.g. cpu",
            RUNS + " predict",
            "runtime.device",
        ),
        "rank_table": Flag(
            "JSON file: servers, devices, ranks; default: one rank; e.g. 8p.json", RUNS
        ),
        "server_id": Flag(
            "this server in the table; default: by its addresses; e.g. 10.0.0.2", RUNS
        ),
        "rendezvous_port": Flag(
            "Horovod on several servers: TCP port, free on the first; default 29400; "
            "e.g. 40000",
            RUNS,
        ),
        "max_restarts": Flag(
            "of a job of one server that has crashed or hung, in a row without a new "
            "checkpoint; default 0; e.g. 3",
            "train",
        ),
        "hang_timeout_secs": Flag(
            "seconds without a step, after which ranks are ended; 0: never; "
            "default 900; e.g. 300",
            RUNS,
        ),
        "start_timeout_secs": Flag(
            "the same while they load, compile and take a first step; default 3600; "
            "e.g. 7200",
            RUNS,
        ),
    },
    "what to do with a run": {
        "checkpoint": Flag(
            "path prefix, e.g. RUN/model.ckpt-2000; default: the newest",
            "evaluate predict export",
        ),
        "top_k": Flag(
            "classes in a row, the likeliest first; default 1; e.g. 5", "predict"
        ),
        "format": Flag(
            "predict: csv or jsonl, default: by the name of --output, or csv; "
            "export: some of saved_model, frozen and onnx, default saved_model,frozen; "
            "e.g. saved_model,onnx",
            "predict export",
        ),
    },
    "benchmark": {
        "warmup_steps": Flag(
            "before the measured ones, at least 1; default 5; e.g. 20", "benchmark"
        ),
        "profile": Flag(
            "write a step's timeline for chrome://tracing or Perfetto into profile/ "
            "beside --output, or in this folder; on an NPU, Ascend's profiling data; "
            "default: none",
            "benchmark",
            is_switch=True,
        ),
    },
    "what to show": {
        "quiet": Flag(
            "results, warnings and errors only; default: progress as well",
            ALL,
            is_switch=True,
        ),
    },
    "rank_table make": {
        "servers": Flag("addresses, required; e.g. 10.0.0.1,10.0.0.2", "rank_table"),
        "devices": Flag(
            "on each server: 1, 2, 4 or 8; default 8; e.g. 4", "rank_table"
        ),
    },
}
FLAG_TABLE = {
    name: flag for group in FLAG_GROUPS.values() for name, flag in group.items()
}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line, taken apart.

    Attributes:
        words: all of it, the verb first.
        arguments: of the words after the verb, those that are no flags.
        flags: of ``FLAG_TABLE``; None where not given.
        overrides: fields of the configuration and their values, as text.
    """

    words: Sequence[str]
    arguments: Sequence[str]
    flags: flags.FlagValues
    overrides: Sequence[Tuple[str, str]]

    def require(self, *names: str) -> None:
        """Refuse a command without these flags.

        Raises:
            ConfigError: naming all that are missing.
        """
        missing = [f"--{n} is missing" for n in names if not self.flags[n].value]
        if missing:
            raise ConfigError(missing, self.words[0])

    def number(self, name: str, default: int) -> int:
        """Return a flag without a field as a whole number.

        Raises:
            ConfigError: it is none.
        """
        text = self.flags[name].value
        if text is None:
            return default
        if not text.isdigit():
            raise ConfigError(f"--{name} is {text!r}: must be a whole number")
        return int(text)

    def fields(self) -> List[Tuple[str, str]]:
        """Return what flags and overrides say of configuration fields, as text."""
        given = [
            (flag.field, self.flags[name].value)
            for name, flag in FLAG_TABLE.items()
            if flag.field and self.flags[name].value is not None
        ]
        if self.flags.epoch is not None and self.flags.train_steps is None:
            # Else the steps of the configuration would win over the user's epochs.
            given.append(("train.steps", "0"))
        return [*given, *self.overrides]


def parse(words: Sequence[str], max_arguments: int) -> Command:
    """Take a command line apart.

    Args:
        words: the verb first.
        max_arguments: words that are no flags, at most.

    Raises:
        ConfigError: unknown or unused flags and arguments, all of them.
    """
    verb, *rest = words
    values = _define_flags()
    try:
        plain = [word for word in rest if not _is_override(word)]
        arguments = values(["alexnet_estimator", *plain])[1:]
    except flags.Error as error:
        raise ConfigError(f"{error}; see --help", "command line") from error
    given = [name for name in FLAG_TABLE if values[name].value is not None]
    problems = [
        f"{verb} does not use --{name}"
        for name in given
        if verb not in FLAG_TABLE[name].verbs.split()
    ]
    problems += [
        f"{verb} takes no argument {argument!r}; see --help"
        for argument in arguments[max_arguments:]
    ]
    if problems:
        raise ConfigError(problems, "command line")
    return Command(words, arguments, values, _overrides(rest))


def help_text(verbs: Mapping[str, str], verb: str = "", is_full: bool = False) -> str:
    """Return the help.

    Args:
        verbs: each with one line on it.
        verb: only its flags; empty: all.
        is_full: all configuration fields as well.
    """
    lines = [f"usage: python -m alexnet_estimator {verb or 'VERB'} [flags]", ""]
    shown = [verb] if verb else list(verbs)
    lines += [f"  {name:<12}{verbs[name]}" for name in shown]
    for title, group in FLAG_GROUPS.items():
        rows = {n: f for n, f in group.items() if not verb or verb in f.verbs.split()}
        lines += ["", f"{title}:"] if rows else []
        for name, flag in rows.items():
            alias = f" (or --{flag.alias})" if flag.alias else ""
            doc = textwrap.wrap(flag.doc + alias, DOC_COLUMNS, break_on_hyphens=False)
            lines.append(f"  --{name:<20}" + ("\n" + " " * 24).join(doc))
    lines += ["", "any field of the configuration:"]
    lines += ["  --config.SECTION.FIELD=VALUE, e.g. --config.optim.momentum=0.95"]
    lines += ["", describe_fields()] if is_full else ["  --helpfull lists them all"]
    return "\n".join(lines)


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    for name, flag in FLAG_TABLE.items():
        define = flags.DEFINE_boolean if flag.is_switch else flags.DEFINE_string
        define(name, None, flag.doc, flag_values=values)
        if flag.alias:
            flags.DEFINE_alias(flag.alias, name, flag_values=values)
    return values


def _is_override(word: str) -> bool:
    return word.startswith("--config.")


def _overrides(words: Sequence[str]) -> List[Tuple[str, str]]:
    pairs, problems = [], []
    for word in filter(_is_override, words):
        name, equals, value = word[len("--config.") :].partition("=")
        if not equals:
            problems.append(f"{word}: write {word}=VALUE")
        pairs.append((name, value))
    if problems:
        raise ConfigError(problems, "command line")
    return pairs
