"""Characters of tinyshakespeare at the size nanoGPT suggests for a laptop, and twice its rate.

Command:
  gpt2-jax prepare --corpus tinyshakespeare --tokenizer char --out runs/data/shakespeare_char
  gpt2-jax train --config configs/shakespeare_char.py --workdir runs/shakespeare_char
Hardware: 2 CPU cores.
Time: 1 to 2 minutes.
Expected loss: 1.827 nats per character on the whole validation set, the mean of three seeds
  measured here. With nanoGPT's own learning rate of 1e-3: 1.906, likewise.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.model.num_layers = 4
    c.model.num_heads = 4
    c.model.d_model = 128
    c.model.context_length = 64
    c.model.vocab_size = 65
    c.model.vocab_multiple = 1
    c.compute.dtype = "float32"
    c.compute.scan_unroll = 4
    c.compute.loss_chunk = 0
    c.data.path = "runs/data/shakespeare_char"
    c.data.tokenizer = "char"
    c.optimizer.beta2 = 0.99
    c.schedule.learning_rate = 2e-3
    c.schedule.min_learning_rate = 1e-4
    c.schedule.warmup_steps = 100
    c.train.batch_size = 12
    c.train.total_steps = 2000
    c.checkpoint.every = 1000
    c.eval.every = 0
    return c
