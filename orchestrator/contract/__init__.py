"""What crosses between the wings: data, roles, hooks, settings, plans. No logic."""
