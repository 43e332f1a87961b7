"""Baselines: the samplers, rewards, estimators, objectives and recipes every comparison starts from."""
