"""Transfer learning: a new run starts with the weights of a trained network."""

from alexnet_estimator.warm_start.sources import (
    Source,
    digest_of,
    is_there,
    locate,
    read_source,
)
from alexnet_estimator.warm_start.takeover import (
    WARM_START_FILE,
    WarmStart,
    choose_layers,
    initializing_scaffold,
    read_record,
    weights_to_assign,
    write_record,
)
