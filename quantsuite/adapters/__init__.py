"""Engines of others behind the suite's protocols."""
