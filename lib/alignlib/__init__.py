"""What the al-* commands share."""

__version__ = "0.1.0"
