"""The export subcommand: a trained model is written for serving."""
