"""Byte-level GPT-2 on the Python standard library's source: the first run."""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.model.num_layers = 4
    c.model.num_heads = 4
    c.model.d_model = 256
    c.model.context_length = 256
    c.model.vocab_size = 257
    c.model.vocab_multiple = 16
    c.model.dtype = "float32"
    c.model.scan_unroll = 4
    c.model.loss_chunk = 0
    c.data.path = "runs/data/python-stdlib"
    c.data.tokenizer = "byte"
    c.schedule.learning_rate = 2e-3
    c.schedule.min_learning_rate = 2e-4
    c.schedule.warmup_steps = 50
    c.train.batch_size = 16
    c.train.total_steps = 1000
    c.checkpoint.every = 250
    c.eval.every = 250
    return c
