"""Drawing completions: the sampler, its draws, conditions, branches of a text."""
