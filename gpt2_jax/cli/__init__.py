"""Implements the console command `gpt2-jax`: each verb parses flags and calls one function."""

MODEL_HELP = (
    "a run's workdir, the folder of one step, RUN/checkpoints/best, a folder in Hugging Face's, "
    "OpenAI's or PEFT's format, or the id of a model on the Hugging Face hub"
)
EMA_HELP = (
    "use the average of the parameters in their place, which a run with optimizer.ema_decay keeps"
)
DTYPE_HELP = (
    "dtype of weights and products: float32, bfloat16, which halves the bytes that are read for "
    "each token, or auto, the faster one here; default: compute.dtype of the model's config"
)
