"""What gives completions their rewards: reward models, programs, rules."""
