"""Figures as pure functions on numbers."""
