"""Reading coefficients: hooks, batches, sums and their cache."""
