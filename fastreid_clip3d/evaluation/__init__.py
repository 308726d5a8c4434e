"""Evaluation: pure functions on ids and distances, and fast-reid evaluators on top of them."""
