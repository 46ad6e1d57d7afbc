"""The toy benchmark: the toy world at the size of MLLMU-Bench, and tiny models that know it."""
