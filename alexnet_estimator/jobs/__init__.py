"""The verbs: each wires configuration, runtime, input and model into one job."""
