"""The benchmark subcommand: the speed of the job itself is measured."""
