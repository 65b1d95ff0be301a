"""The predict subcommand: a trained model answers pictures."""
