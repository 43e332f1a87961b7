"""Held-out measurement: pass@k, agreement, diversity."""
