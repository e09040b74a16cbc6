"""SafeDiffusion: make a text-to-image model safe by online reinforcement learning, and prove it."""

__version__ = "0.1.0"
