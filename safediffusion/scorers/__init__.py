"""Images to one number an image; a reward in training and a metric in evaluation."""
