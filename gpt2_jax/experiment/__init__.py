"""Trains and evaluates by functions, which the command line, sweeps and notebooks call.

`train(config, workdir)` combines data, evaluators and the trainer; `evaluate(model, tasks)`
combines a model and its tasks. In a run of several processes each calls the same function, after
`gpt2_jax.parallel.distributed.initialize`.
"""

from gpt2_jax.experiment.evaluation_run import evaluate
from gpt2_jax.experiment.training_run import dry_run, make_setup, train

__all__ = ["dry_run", "evaluate", "make_setup", "train"]
