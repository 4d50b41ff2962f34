"""What runs a language model or reward model: folders, tokens, packs, attention."""
