"""The composition root: what starts the parts in order, and stops them in order."""
