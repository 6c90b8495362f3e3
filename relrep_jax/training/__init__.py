"""Training: losses, one step, the compiled loop over steps and seeds, checkpoints, logs."""
