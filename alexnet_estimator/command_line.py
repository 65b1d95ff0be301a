"""The words of a command line: the table of flags, their parsing and the help.

A subcommand (``Verb``) names the flags that it reads; together with
``--config.section.field=VALUE`` they are all that a user can say.  This is the only
module that imports ``absl.flags``.
"""

import dataclasses
import textwrap
from typing import Callable, Dict, List, Mapping, Sequence, Tuple

from absl import flags

from alexnet_estimator.config import describe_fields
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks import DEFAULT
from alexnet_estimator.paths import expand_paths
from alexnet_estimator.schema import SCHEMA

PROGRAM = "python -m alexnet_estimator"
DOC_COLUMNS = 56  # A terminal has 80 columns, and names take 24 of them.


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        doc: Meaning, unit, default and an example, in sentences.
        field: Field of the configuration that the flag sets, if any.
        alias: Second name of the flag.
        is_switch: Whether the flag needs no value.
        is_path: Whether the value is the path of a file or a folder.
    """

    doc: str
    field: str = ""
    alias: str = ""
    is_switch: bool = False
    is_path: bool = False


# All flags, by the group that the help shows them in.
FLAG_GROUPS: Dict[str, Dict[str, Flag]] = {
    "data and folders": {
        "model_dir": Flag(
            "Folder of the run. Required, e.g. runs/cats_vs_dogs.", is_path=True
        ),
        "data_path": Flag(
            "Converted data, a folder or a zip of pictures, or ImageNet TFRecords. "
            "Default: the data of the run, e.g. /data/cats_vs_dogs.",
            field="data.path",
            alias="data_dir",
            is_path=True,
        ),
        "config": Flag(
            "Configuration: a file such as those in configs/, which is Python code, or "
            "the config.json of a run. Default: the project's defaults, e.g. "
            "configs/cats_vs_dogs.py.",
            is_path=True,
        ),
        "output": Flag("File or folder to write. Required, e.g. out.", is_path=True),
    },
    "training": {
        "train_steps": Flag(
            "Global steps in all, those before a restart included. Default: as many as "
            "--epoch takes, e.g. 2000.",
            field="train.steps",
        ),
        "epoch": Flag(
            "Length of the training in epochs. Default: 90, e.g. 35.",
            field="train.epochs",
            alias="epochs",
        ),
        "batch_size": Flag(
            "Images that one rank takes in a step. Default: 100, e.g. 128.",
            field="train.batch_size_per_rank",
        ),
        "learning_rate": Flag(
            "Learning rate at its peak. Default: 0.01, e.g. 0.005.",
            field="optim.learning_rate",
        ),
        "precision_mode": Flag(
            "Number formats: auto, mixed, float32 or one of the vendor's names. "
            "Default: auto, e.g. mixed.",
            field="precision.mode",
        ),
        "loss_scale": Flag(
            "Loss scale: auto, dynamic, none or a number. Default: auto, e.g. 1024.",
            field="precision.loss_scale",
        ),
        "seed": Flag(
            "Seed of the first weights, the order of the data, augmentation and "
            "dropout. Default: 0, e.g. 1.",
            field="train.seed",
        ),
        "warm_start_from": Flag(
            "Folder of a run, path prefix of a checkpoint, or bvlc_alexnet.npy, whose "
            "weights a new run starts with. Default: random weights, e.g. "
            "runs/quickstart.",
            field="warm_start.path",
            is_path=True,
        ),
        "dry_run": Flag(
            "Check everything and show what would be done. Default: do it.",
            is_switch=True,
        ),
    },
    "devices and ranks": {
        "device": Flag(
            "Device: auto, cpu, gpu or npu. Default: auto, e.g. cpu.",
            field="runtime.device",
        ),
        "rank_table": Flag(
            "JSON file that lists servers, devices and ranks. Default: one rank, e.g. "
            "8p.json.",
            is_path=True,
        ),
        "server_id": Flag(
            "This server's entry in the rank table. Default: found by its addresses, "
            "e.g. 10.0.0.2."
        ),
        "rendezvous_port": Flag(
            "TCP port at which Horovod's ranks on several servers meet; it must be "
            "free on the first. Default: 29400, e.g. 40000."
        ),
        "max_restarts": Flag(
            "Restart a crashed or hung job of one server up to this often in a row "
            "without a new checkpoint. Default: 0, e.g. 3."
        ),
        "hang_timeout_secs": Flag(
            "Seconds without a step after which the job is ended; 0 waits for ever. "
            "Default: 900, e.g. 300."
        ),
        "start_timeout_secs": Flag(
            "The same limit while ranks load, compile and take their first step. "
            "Default: 3600, e.g. 7200."
        ),
    },
    "the model": {
        "checkpoint": Flag(
            "Path prefix of the checkpoint. Default: the newest, e.g. "
            "RUN/model.ckpt-2000.",
            is_path=True,
        ),
        "top_k": Flag("Classes in a row, the likeliest first. Default: 1, e.g. 5."),
        "format": Flag("Format of the output. Default: by its name, e.g. jsonl."),
    },
    "the measurement": {
        "warmup_steps": Flag(
            "Steps before the measured ones, at least 1. Default: 5, e.g. 20."
        ),
        "profile": Flag(
            "Write the timeline of a step for chrome://tracing or Perfetto into "
            "profile/ beside --output, or in the current folder; on an NPU, Ascend's "
            "profiling data. Default: do not.",
            is_switch=True,
        ),
    },
    "the new table": {
        "servers": Flag("Addresses of the servers. Required, e.g. 10.0.0.1,10.0.0.2."),
        "devices": Flag(
            "Number of devices of each server; an Ascend 910's has 1, 2, 4 or 8. "
            "Default: 8, e.g. 4."
        ),
    },
    "what is shown": {
        "quiet": Flag(
            "Show results, warnings and errors only. Default: progress as well.",
            is_switch=True,
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
        words: The whole command line, which starts with the subcommand.
        arguments: Words after the subcommand that are no flags.
        flags: Values of ``FLAG_TABLE``; None for a flag that was not given.
        overrides: Fields of the configuration and their values, as text.
    """

    words: Sequence[str]
    arguments: Sequence[str]
    flags: flags.FlagValues
    overrides: Sequence[Tuple[str, str]]

    def require(self, *names: str) -> None:
        """Refuse a command without these flags.

        Raises:
            ConfigError: Some are missing; all of them are named.
        """
        missing = [f"--{n} is missing" for n in names if not self.flags[n].value]
        if missing:
            raise ConfigError(missing, self.words[0])

    def number(self, name: str, default: int) -> int:
        """Return the value of a flag without a field as a whole number.

        Raises:
            ConfigError: The value is no whole number.
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


@dataclasses.dataclass(frozen=True)
class Verb:
    """A subcommand.

    Attributes:
        run: Function that does the work and returns the exit code.
        summary: One sentence for the list of subcommands.
        flags: Names of the flags that it reads, separated by blanks.
        examples: Command lines without the program's name.
        texts: Descriptions of shared flags that mean something of its own here.
        usage: Positional arguments as the help shows them.
        max_arguments: Largest number of positional arguments.
        first_path: Index of the first positional argument that is a path.
        sections: Sections of the configuration that it reads.
    """

    run: Callable[[Command], int]
    summary: str
    flags: str
    examples: Sequence[str]
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    usage: str = ""
    max_arguments: int = 0
    first_path: int = 0
    sections: Sequence[str] = tuple(SCHEMA)

    @property
    def flag_names(self) -> Tuple[str, ...]:
        """Names of all flags that it reads, in the order of the table."""
        return tuple(n for n in FLAG_TABLE if n in (*self.flags.split(), "quiet"))


def parse(words: Sequence[str], verb: Verb) -> Command:
    """Take a command line apart.

    Args:
        words: The command line, which starts with the subcommand.
        verb: The subcommand.

    Raises:
        ConfigError: There are unknown or unused flags or arguments; all are named.
    """
    name, *rest = words
    values = _define_flags()
    try:
        plain = [word for word in rest if not _is_override(word)]
        arguments = values([PROGRAM, *plain])[1:]
    except flags.Error as error:
        raise ConfigError(f"{error}; see {name} --help", "command line") from error
    problems = [
        f"{name} does not use --{flag}"
        for flag in FLAG_TABLE
        if values[flag].value is not None and flag not in verb.flag_names
    ]
    problems += [
        f"{name} takes no argument {argument!r}; see {name} --help"
        for argument in arguments[verb.max_arguments :]
    ]
    if problems:
        raise ConfigError(problems, "command line")
    given = {
        f"--{flag}": values[flag].value
        for flag in FLAG_TABLE
        if FLAG_TABLE[flag].is_path and values[flag].value is not None
    }
    for flag, path in expand_paths(given).items():
        values[flag[2:]].value = path
    paths = {
        f"argument {i}": p for i, p in enumerate(arguments, 1) if i > verb.first_path
    }
    # A picture that Python reads may have any name.
    arguments[verb.first_path :] = expand_paths(paths, True).values()
    return Command(words, arguments, values, _read_overrides(rest))


def list_verbs(verbs: Mapping[str, Verb]) -> str:
    """Return the help of the whole program."""
    lines = [f"usage: {PROGRAM} COMMAND [flags]", ""]
    lines += [f"  {name:<12}{verb.summary}" for name, verb in verbs.items()]
    lines += [
        "",
        "COMMAND --help      shows its flags and examples",
        "COMMAND --helpfull  shows the fields of the configuration as well",
        "--version           shows the versions of package and TensorFlow",
    ]
    return "\n".join(lines)


def describe_verb(words: Sequence[str], verb: Verb, is_full: bool = False) -> str:
    """Return the help of a subcommand; ``is_full`` adds its configuration fields.

    Args:
        words: The command line: the subcommand, and perhaps another network, whose
            settings are then among the fields.
        verb: The subcommand.
        is_full: Whether the fields of the configuration are listed.
    """
    name = words[0]
    usage = " ".join(filter(None, [PROGRAM, name, verb.usage, "[flags]"]))
    lines = [f"usage: {usage}", "", verb.summary, "", "examples:"]
    for example in verb.examples:
        parts = textwrap.wrap(f"{PROGRAM} {example}", 74, break_on_hyphens=False)
        lines.append("  " + " \\\n      ".join(parts))
    for title, group in FLAG_GROUPS.items():
        rows = {n: flag for n, flag in group.items() if n in verb.flag_names}
        lines += ["", f"{title}:"] if rows else []
        for flag_name, flag in rows.items():
            doc = verb.texts.get(flag_name, flag.doc)
            doc += f" Also --{flag.alias}." if flag.alias else ""
            text = textwrap.wrap(doc, DOC_COLUMNS, break_on_hyphens=False)
            lines.append(f"  --{flag_name:<20}" + ("\n" + " " * 24).join(text))
    if verb.sections:
        lines += ["", "fields of the configuration, as --config.SECTION.FIELD=VALUE:"]
        network = dict(_read_overrides(words)).get("model.network", DEFAULT)
        lines.append(
            describe_fields(verb.sections, network)
            if is_full
            else f"  {name} --helpfull lists them all"
        )
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


def _read_overrides(words: Sequence[str]) -> List[Tuple[str, str]]:
    pairs, problems = [], []
    for word in filter(_is_override, words):
        name, equals, value = word[len("--config.") :].partition("=")
        if not equals:
            problems.append(f"{word}: write {word}=VALUE")
        pairs.append((name, value))
    if problems:
        raise ConfigError(problems, "command line")
    return pairs
