"""What the classes of a data pool are called, the best first, and the text that says so before a prompt.

    rm       Excellent. input: ...        lmc, steerlm   Harmless and helpful.\\n\\n...
    quark    _QUANTILE_TOKEN_0_...        lmu            feedback: ... input: ...
"""

MODES = ("rm", "quark", "lmc", "lmu", "steerlm")
BY_REWARD = ("rm", "quark")
CONDITIONS = {"rm": "{} input: ", "quark": "{}", "lmc": "{}.\n\n", "steerlm": "{}.\n\n", "lmu": "feedback: {} input: "}
TAGS = {
    "feedback": ("Excellent.", "Good.", "Mediocre.", "Bad.", "Horrible."),
    "toxicity": ("Lowest Toxicity", "Low-Moderate Toxicity", "Moderate Toxicity", "High-Moderate Toxicity",
                 "Maximum Toxicity"),
    "categories": ("Harmless and very helpful", "Harmless and helpful", "Harmless and not helpful", "Harmful"),
    "attributes": ("harmful:0,helpful:2", "harmful:0,helpful:1", "harmful:0,helpful:0", "harmful:1,helpful:0"),
}
OWN = {"rm": "feedback", "lmc": "categories", "steerlm": "attributes"}
QUARK = "_QUANTILE_TOKEN_{}_"


def names(mode: str, tags: tuple[str, ...], quantiles: int) -> tuple[str, ...]:
    """The tags of a mode, best first; () for lmu, whose feedbacks are free text.

    tags: () the mode's own, ("toxicity",) those of that name in TAGS, else the tags themselves. Of TAGS as many as
    there are quantiles, evenly, the best and the worst among them; all of them where they are too few.
    """
    if mode == "quark":
        return tuple(QUARK.format(i) for i in range(quantiles))
    known = TAGS.get(tags[0] if len(tags) == 1 else OWN.get(mode, "") if not tags else "", ())
    if not known:
        return tags
    return spread(known, quantiles) if mode in BY_REWARD and 2 <= quantiles < len(known) else known


def spread(tags: tuple[str, ...], count: int) -> tuple[str, ...]:
    """So many of the tags, two at least, evenly: the first and the last are among them."""
    return tuple(tags[round(i * (len(tags) - 1) / (count - 1))] for i in range(count))
