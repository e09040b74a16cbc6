"""From named scores to what is learned from: one number an image, and its advantage inside its group."""
