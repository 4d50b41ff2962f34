"""Records: JSON Lines, their fields, streams of them, outputs that survive a kill."""
