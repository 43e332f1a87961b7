"""Judges what arms measured: which is better, by how much, at equal cost."""
