"""Sampling, fitting, evaluation and baselines."""
