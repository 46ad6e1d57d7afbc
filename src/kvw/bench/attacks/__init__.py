"""Attacks on the models of a finished benchmark run."""
