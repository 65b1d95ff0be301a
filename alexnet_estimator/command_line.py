"""The table of flags, the parser of command lines and the text of the help.

Each subcommand (``Verb``) names the flags that it reads.  Besides them, a command line
may set any field of the configuration with ``--config.section.field=VALUE``.  This is
the only module that imports ``absl.flags``.
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
DOC_COLUMNS = 56  # A terminal has 80 columns, and the names of flags take 24 of them.


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag of the command line.

    Attributes:
        doc: Description with the unit, the default value and an example.
        field: Field of the configuration that the flag sets; empty for none.
        alias: Second name of the flag; empty for none.
        is_switch: Whether the flag takes no value.
        is_path: Whether the value is the path of a file or a folder.
    """

    doc: str
    field: str = ""
    alias: str = ""
    is_switch: bool = False
    is_path: bool = False


# All flags, in the groups of the help.
FLAG_GROUPS: Dict[str, Dict[str, Flag]] = {
    "data and folders": {
        "model_dir": Flag(
            "Folder of the run. Required, e.g. runs/cats_vs_dogs.", is_path=True
        ),
        "data_path": Flag(
            "Data: the output of convert, a folder or zip of pictures, or ImageNet "
            "TFRecords. Default: the data of the run. Example: /data/cats_vs_dogs.",
            field="data.path",
            alias="data_dir",
            is_path=True,
        ),
        "config": Flag(
            "Configuration: a Python file such as those in configs/, or the "
            "config.json of a run. Default: configs/default.py. Example: "
            "configs/cats_vs_dogs.py.",
            is_path=True,
        ),
        "output": Flag("File or folder to write. Required, e.g. out.", is_path=True),
    },
    "training": {
        "train_steps": Flag(
            "Total number of global steps, including those before a restart. Default: "
            "the steps of --epoch. Example: 2000.",
            field="train.steps",
        ),
        "epoch": Flag(
            "Total number of epochs. Default: 90. Example: 35.",
            field="train.epochs",
            alias="epochs",
        ),
        "batch_size": Flag(
            "Images of one rank in a step. Default: 100. Example: 128.",
            field="train.batch_size_per_rank",
        ),
        "learning_rate": Flag(
            "Peak learning rate. Default: 0.01. Example: 0.005.",
            field="optim.learning_rate",
        ),
        "precision_mode": Flag(
            "Precision: auto, mixed, float32, or a precision mode of Ascend. "
            "Default: auto. Example: mixed.",
            field="precision.mode",
        ),
        "loss_scale": Flag(
            "Loss scale: auto, dynamic, none or a number. Default: auto. Example: "
            "1024.",
            field="precision.loss_scale",
        ),
        "seed": Flag(
            "Seed of the initial weights, shuffling, augmentation and dropout. "
            "Default: 0. Example: 1.",
            field="train.seed",
        ),
        "warm_start_from": Flag(
            "Source of the initial weights of a new run: the folder of another run, "
            "the path prefix of a checkpoint, or bvlc_alexnet.npy. Default: random "
            "weights. Example: runs/quickstart.",
            field="warm_start.path",
            is_path=True,
        ),
        "dry_run": Flag(
            "Check everything and show the plan without training. Default: train.",
            is_switch=True,
        ),
    },
    "devices and ranks": {
        "device": Flag(
            f"Device: {SCHEMA['runtime']['device'].rule.text}. Default: auto. "
            "Example: cpu.",
            field="runtime.device",
        ),
        "rank_table": Flag(
            "JSON file that lists the servers, devices and ranks of the job. Default: "
            "one rank. Example: 8p.json.",
            is_path=True,
        ),
        "server_id": Flag(
            "ID of this server in the rank table. Default: the server with an address "
            "of this machine. Example: 10.0.0.2."
        ),
        "rendezvous_port": Flag(
            "TCP port of Horovod's rendezvous, which must be free on the first "
            "server. Default: 29400 for several servers, any free port for one. "
            "Example: 40000."
        ),
        "max_restarts": Flag(
            "Restart a crashed or hung job on one server up to N times. The count "
            "starts again with every new checkpoint. Default: 0. Example: 3."
        ),
        "hang_timeout_secs": Flag(
            "End the job if no rank finishes a step for this many seconds; 0 disables "
            "the limit. Default: 900. Example: 300."
        ),
        "start_timeout_secs": Flag(
            "The limit in seconds before the first step, while the ranks load and "
            "compile; 0 disables it. Default: 3600. Example: 7200."
        ),
    },
    "the model": {
        "checkpoint": Flag(
            "Path prefix of the checkpoint. Default: the newest one. Example: "
            "RUN/model.ckpt-2000.",
            is_path=True,
        ),
        "top_k": Flag("Number of the most probable classes. Default: 1. Example: 5."),
        "format": Flag(
            "Format of the output. Default: the suffix of --output. Example: jsonl."
        ),
    },
    "the measurement": {
        "warmup_steps": Flag(
            "Number of steps before the measurement, at least 1. Default: 5. Example: "
            "20."
        ),
        "profile": Flag(
            "Write the timeline of a step for chrome://tracing or Perfetto to "
            "profile/ beside --output, or in the current folder. On an NPU, write "
            "Ascend's profiling data. Default: no profile.",
            is_switch=True,
        ),
    },
    "the new table": {
        "servers": Flag(
            "Addresses of the servers, separated by commas. Required, e.g. "
            "10.0.0.1,10.0.0.2."
        ),
        "devices": Flag(
            "Number of devices per server: 1, 2, 4 or 8 on an Ascend 910. Default: "
            "8. Example: 4."
        ),
    },
    "output": {
        "quiet": Flag(
            "Show results, warnings and errors only. Default: show progress too.",
            is_switch=True,
        ),
    },
}
FLAG_TABLE = {
    name: flag for group in FLAG_GROUPS.values() for name, flag in group.items()
}


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
        words: Whole command line, which starts with the subcommand.
        arguments: Positional arguments after the subcommand.
        flags: Values of the flags in ``FLAG_TABLE``; None for a flag that is not given.
        overrides: Names of configuration fields and their values as text.
    """

    words: Sequence[str]
    arguments: Sequence[str]
    flags: flags.FlagValues
    overrides: Sequence[Tuple[str, str]]

    def require(self, *names: str) -> None:
        """Check that these flags are given.

        Raises:
            ConfigError: A flag is missing; the message names all missing flags.
        """
        missing = [f"--{n} is missing" for n in names if not self.flags[n].value]
        if missing:
            raise ConfigError(missing, self.words[0])

    def number(self, name: str, default: int) -> int:
        """Return the value of a flag as a whole number.

        Raises:
            ConfigError: The value is not a whole number.
        """
        text = self.flags[name].value
        if text is None:
            return default
        if not text.isdecimal():
            raise ConfigError(f"--{name} is {text!r}: must be a whole number")
        return int(text)

    def fields(self) -> List[Tuple[str, str]]:
        """Return the configuration fields that the command line sets, as text."""
        given = [
            (flag.field, self.flags[name].value)
            for name, flag in FLAG_TABLE.items()
            if flag.field and self.flags[name].value is not None
        ]
        if self.flags.epoch is not None and self.flags.train_steps is None:
            # Otherwise the configuration's train.steps would override --epoch.
            given.append(("train.steps", "0"))
        return [*given, *self.overrides]


@dataclasses.dataclass(frozen=True)
class Verb:
    """A subcommand.

    Attributes:
        run: Function that does the work and returns the exit code.
        summary: Description in one sentence for the list of subcommands.
        flags: Names of the flags that it reads, separated by spaces.
        examples: Command lines without the name of the program.
        texts: Descriptions of shared flags that differ for this subcommand.
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
        """Return the names of all flags that it reads, in the order of the table."""
        return tuple(n for n in FLAG_TABLE if n in (*self.flags.split(), "quiet"))


def parse(words: Sequence[str], verb: Verb) -> Command:
    """Parse a command line.

    Args:
        words: Command line, which starts with the subcommand.
        verb: Subcommand.

    Raises:
        ConfigError: Flags or arguments are unknown, or the subcommand does not use
            them; the message names all of them.
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
    # Python reads the pictures of predict, so that they may have any name.
    arguments[verb.first_path :] = expand_paths(paths, True).values()
    return Command(words, arguments, values, _read_overrides(rest))


def list_verbs(verbs: Mapping[str, Verb]) -> str:
    """Return the help of the whole program."""
    lines = [f"usage: {PROGRAM} COMMAND [flags]", ""]
    width = max(map(len, verbs)) + 2
    lines += [f"  {name:<{width}}{verb.summary}" for name, verb in verbs.items()]
    lines += [
        "",
        "COMMAND --help      shows the flags of a subcommand, and examples",
        "COMMAND --helpfull  also shows the fields of the configuration",
        "--version           shows the versions of the package and of TensorFlow",
    ]
    return "\n".join(lines)


def describe_verb(words: Sequence[str], verb: Verb, is_full: bool = False) -> str:
    """Return the help of a subcommand.

    Args:
        words: Command line, which starts with the subcommand.  If it chooses a network,
            the fields include the settings of that network.
        verb: Subcommand.
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
