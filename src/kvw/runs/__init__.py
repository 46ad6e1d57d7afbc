"""Whole runs: what the command line does, as functions."""
