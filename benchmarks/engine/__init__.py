"""How fast the engine is: images a second, use of the arithmetic units, peak memory, the ratio before any update."""
