"""One file an algorithm: what an experience is flattened to, and the loss of those items."""
