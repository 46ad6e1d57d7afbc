"""Relatives of subspace weakening: what others do with the same moments, as methods of their own."""
