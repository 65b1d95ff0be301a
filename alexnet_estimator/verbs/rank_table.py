"""The rank_table subcommand."""

from alexnet_estimator import console
from alexnet_estimator import rank_table as tables
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.errors import EXIT_DONE, ConfigError


def rank_table(command: Command) -> int:
    """Check or create a rank table."""
    action, *files = command.arguments or [""]
    if action == "check" and len(files) == 1:
        console.show(tables.describe_check(tables.read(files[0])))
        return EXIT_DONE
    if action == "make" and not files:
        command.require("servers", "output")
        servers = [name.strip() for name in command.flags.servers.split(",")]
        num_devices = command.number("devices", 8)
        made = tables.make_file(servers, num_devices, command.flags.output)
        console.say(made, is_result=True)
        return EXIT_DONE
    raise ConfigError(
        "write `rank_table check FILE` or `rank_table make --servers=...`"
    )


VERB = Verb(
    rank_table,
    "Check or create a rank table.",
    "output servers devices",
    examples=(
        "rank_table check 8p.json",
        "rank_table make --servers=10.0.0.1,10.0.0.2 --output=2x8p.json",
    ),
    texts={"output": "File of the new rank table. Required, e.g. 8p.json."},
    usage="check FILE | make",
    max_arguments=2,
    first_path=1,
    sections=(),
)
