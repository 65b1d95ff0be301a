"""The command-line program: the table of subcommands, and the exit code of an error.

``verbs`` implements the subcommands.  Only those that need TensorFlow import it, so
that the help and wrong flags are answered at once.
"""

import os
import signal
import sys
from typing import Dict, List, Optional

from alexnet_estimator import __version__, console, disk, engine, launch
from alexnet_estimator.command_line import Verb, describe_verb, list_verbs, parse
from alexnet_estimator.errors import (
    EXIT_DATA,
    EXIT_DONE,
    EXIT_STOPPED,
    ConfigError,
    UserError,
)
from alexnet_estimator.rank_environment import is_rank
from alexnet_estimator.verbs.benchmark import VERB as BENCHMARK
from alexnet_estimator.verbs.convert import VERB as CONVERT
from alexnet_estimator.verbs.doctor import VERB as DOCTOR
from alexnet_estimator.verbs.evaluate import VERB as EVALUATE
from alexnet_estimator.verbs.export import VERB as EXPORT
from alexnet_estimator.verbs.predict import VERB as PREDICT
from alexnet_estimator.verbs.rank_table import VERB as RANK_TABLE
from alexnet_estimator.verbs.report import VERB as REPORT
from alexnet_estimator.verbs.train import VERB as TRAIN
from alexnet_estimator.verbs.verify import VERB as VERIFY

# The subcommands in the order of the help; a new one gets a line here.
VERBS: Dict[str, Verb] = {
    "train": TRAIN,
    "evaluate": EVALUATE,
    "predict": PREDICT,
    "export": EXPORT,
    "report": REPORT,
    "convert": CONVERT,
    "verify": VERIFY,
    "benchmark": BENCHMARK,
    "rank_table": RANK_TABLE,
    "doctor": DOCTOR,
}
HELP = ("help", "--help", "-h", "--helpfull")
VERSION = "--version"
# The exit code that a shell reports for a program that SIGPIPE has ended.
EXIT_PIPE = 128 + signal.SIGPIPE


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command line and return its exit code.

    A ``UserError`` becomes a message and an exit code instead of a traceback.
    """
    launch.prepare_signals()
    # The launcher writes the output of its ranks to log files.
    console.prepare(is_log=is_rank(os.environ))
    words = list(sys.argv[1:] if argv is None else argv)
    has_launcher = any(word.startswith("--rank_table") for word in words)
    launch.prepare_tensorflow(has_launcher)
    try:
        with disk.explaining_errors():
            return _run(words)
    except UserError as error:
        console.complain(error.message())
        return error.exit_code
    except OSError as error:
        if error.filename != console.STDOUT_NAME:
            raise
        if isinstance(error, BrokenPipeError):  # The reader, e.g. `head`, has ended.
            return EXIT_PIPE
        console.complain(
            f"{error.filename}: {error.strerror}; redirect it to another file"
        )
        return EXIT_DATA
    except KeyboardInterrupt:
        console.note("interrupted; run the same command again to continue")
        return EXIT_STOPPED
    finally:
        console.finish()


def _run(words: List[str]) -> int:
    name = words[0] if words and words[0] not in (*HELP, VERSION) else ""
    if name and name not in VERBS:
        raise ConfigError(
            f"there is no subcommand {name!r}; choose one of {', '.join(VERBS)}"
        )
    if VERSION in words[:1]:
        python = sys.version.split()[0]
        versions = f"{__version__}, {engine.describe_build()}, Python {python}"
        console.show(f"alexnet_estimator {versions}")
        return EXIT_DONE
    if not name:
        console.show(list_verbs(VERBS))
        return EXIT_DONE
    if any(word in HELP for word in words):
        is_full = "--helpfull" in words
        console.show(describe_verb(words, VERBS[name], is_full))
        return EXIT_DONE
    command = parse(words, VERBS[name])
    console.be_quiet(bool(command.flags.quiet))
    return VERBS[name].run(command)


if __name__ == "__main__":
    sys.exit(main())
