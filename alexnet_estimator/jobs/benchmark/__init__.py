"""The benchmark job: the speed of training, evaluation and input."""
