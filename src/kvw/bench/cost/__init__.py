"""What methods cost: time, memory, FLOPs and energy, on models of real sizes with random weights."""
