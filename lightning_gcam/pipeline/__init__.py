"""One look, step by step: maps, what the model gives for changed images, scores, checks, and the record of them."""
