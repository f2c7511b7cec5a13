"""Chorales as events of MIDI, with relative positions (Music Transformer), in all twelve keys."""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.model.num_layers = 4
    c.model.num_heads = 4
    c.model.d_model = 128
    c.model.context_length = 512
    c.model.vocab_multiple = 1
    c.model.position = "relative"
    c.model.dropout = 0.1
    c.compute.dtype = "float32"
    c.compute.loss_chunk = 0
    c.compute.scan_unroll = 4
    c.data.path = "runs/data/music"
    c.data.tokenizer = "words"
    c.data.isolate_documents = True
    c.optimizer.beta2 = 0.99
    c.schedule.learning_rate = 2e-3
    c.schedule.min_learning_rate = 1e-4
    c.schedule.warmup_steps = 100
    c.train.batch_size = 4
    c.train.total_steps = 4000
    c.checkpoint.every = 500
    c.eval.every = 500
    c.eval.batches = -1
    c.eval.sample_tokens = 0
    c.log.every = 20
    return c
