"""A reward of one's own: al-train-ppo ... --reward py:examples/grpo-chat/forty_words.py:near"""


def near(record: dict, completions: list[str]) -> list[float]:
    """0 for an answer of forty words, one less for every ten words away from it."""
    return [-abs(len(text.split()) - 40) / 10 for text in completions]
