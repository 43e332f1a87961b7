"""From an experiment file to a plan: read, laid out by arm, judged."""
