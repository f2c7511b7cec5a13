"""The console command `gpt2-jax`: one file a verb; flags in, functions called, text out."""

MODEL_HELP = (
    "a run's workdir, one step's folder, a folder in Hugging Face's or OpenAI's format, or a hub id"
)
