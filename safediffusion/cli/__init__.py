"""The command `safediffusion`: one file a command, each a thin layer over functions a notebook can call."""
