"""One training loop, and what it takes: objectives, losses, batches, engines, the run's folder."""
