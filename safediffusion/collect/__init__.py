"""Where a training step's data comes from; each collector yields one kind of experience."""
