"""The training loop and its parts: reduction, weights, checkpoints, the ledger of metrics."""
