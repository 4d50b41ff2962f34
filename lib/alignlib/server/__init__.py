"""An OpenAI-compatible server, asked many things at a time."""
