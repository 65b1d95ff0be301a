"""The doctor: checks of the machine, then a short training with known results."""
