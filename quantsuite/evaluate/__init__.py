"""Evaluators: perplexity, multiple choice, and drift from a reference, over the engine protocol."""
