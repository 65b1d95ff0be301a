"""Session hooks: guard against divergence, progress, metrics, saving and stopping."""
