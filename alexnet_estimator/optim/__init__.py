"""Learning-rate schedules, optimizers and loss scaling."""
