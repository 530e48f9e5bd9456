"""What it costs to keep the input, and the model, private."""
