"""What is watched: the window of the prediction log against the training data."""
