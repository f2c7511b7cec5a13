"""Chorales as events of MIDI, in all twelve keys, with relative positions; see docs/music.md.

Command:
  gpt2-jax prepare --task music --input MIDI --out runs/data/music
  gpt2-jax train --config configs/music.py --workdir runs/music
  gpt2-jax eval --tasks music --data runs/data/music --model runs/music/checkpoints/best
MIDI is a folder of files, such as 370 chorales of Bach.
Hardware: 2 CPU cores.
Time: 15 minutes.
Expected loss: 0.735 nats per token (val), 0.768 (test), where an 8-gram needs 1.234.
"""

from gpt2_jax.config import default


def get_config():
    """Returns the config."""
    c = default()
    c.model.num_layers = 4
    c.model.num_heads = 4
    c.model.d_model = 128
    c.model.context_length = 512
    c.model.vocab_size = 193
    c.model.vocab_multiple = 1
    c.model.position = "relative"
    c.model.activation = "relu2"
    c.model.dropout = 0.0
    c.compute.dtype = "float32"
    c.compute.loss_chunk = 0
    c.compute.scan_unroll = 4
    c.data.path = "runs/data/music"
    c.data.tokenizer = "words"
    c.data.isolate_documents = True
    c.optimizer.name = "muon"
    c.optimizer.weight_decay = 0.1
    c.schedule.learning_rate = 2.0**-7
    c.schedule.min_learning_rate = 0.0
    c.schedule.warmup_steps = 100
    c.schedule.name = "linear"
    c.train.batch_size = 4
    c.train.total_steps = 1500
    c.checkpoint.every = 250
    c.checkpoint.best = "eval/loss"
    c.eval.every = 250
    c.eval.batches = -1
    c.eval.sample_tokens = 0
    c.log.every = 20
    return c
