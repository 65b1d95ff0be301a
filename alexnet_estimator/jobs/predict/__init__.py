"""The prediction job: a trained model classifies pictures."""
