"""How the weights of the emoji world were made. `python -m safediffusion.worlds.emoji.build --help`."""
