"""Loss to step to state: the optimizer, the train step, the loop and what it writes down."""
