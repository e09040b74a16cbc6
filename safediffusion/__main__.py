"""`python -m safediffusion`, which is also what `accelerate launch -m safediffusion` starts."""

from safediffusion.cli.main import main

if __name__ == "__main__":
    main()
