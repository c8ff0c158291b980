"""Training loops, optimizers, losses, gradient checkpointing, cached features."""
