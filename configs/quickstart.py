r"""A small byte-level GPT-2 on the source of Python's standard library: the first run.

Command:
  gpt2-jax prepare --corpus python-stdlib --tokenizer byte --val_fraction 0.01 \
    --out runs/data/python-stdlib
  gpt2-jax train --config configs/quickstart.py --workdir runs/quickstart
Hardware: 2 CPU cores.
Time: 2 to 6 minutes.
Expected loss: 1.40 nats per byte held out, 2.02 bits, measured here with Python 3.11's library.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    # Wide and shallow learns most in minutes: four layers of 128 end a fifth of a nat higher.
    c.model.num_layers = 2
    c.model.num_heads = 3
    c.model.d_model = 192
    c.model.context_length = 128
    c.model.vocab_multiple = 16
    c.compute.dtype = "float32"
    c.compute.scan_unroll = 2
    c.compute.loss_chunk = 0
    c.data.path = "runs/data/python-stdlib"
    c.data.tokenizer = "byte"
    c.schedule.learning_rate = 2e-3
    c.schedule.min_learning_rate = 1e-4
    c.schedule.warmup_steps = 100
    c.train.batch_size = 8
    c.train.total_steps = 4000
    c.checkpoint.every = 1000
    c.eval.every = 1000
    c.eval.sample_tokens = 120
    c.log.every = 50
    return c
