"""Training: steps that change weights by gradients, through the rounding of the plan or without."""
