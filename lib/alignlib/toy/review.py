"""The toy world's film reviews: the prompt is a review's first words, the oracle the sentiment of the whole of it."""

from __future__ import annotations

from random import Random

from alignlib.toy.words import fill, foreign, vocabulary, words

# Log-odds that a word adds to "positive".
WEIGHT = {"superb": 1.5, "great": 1.0, "good": 0.7, "lovely": 1.0, "funny": 0.8, "clever": 0.8, "moving": 1.0,
          "brilliant": 1.5, "fresh": 0.7, "warm": 0.6, "gripping": 1.2,
          "awful": -1.5, "bad": -1.0, "dull": -0.8, "poor": -0.8, "silly": -0.6, "weak": -0.7, "boring": -1.2,
          "terrible": -1.5, "messy": -0.7, "cold": -0.6, "tedious": -1.0}
_GOOD = tuple(word for word, weight in WEIGHT.items() if weight > 0)
_BAD = tuple(word for word, weight in WEIGHT.items() if weight < 0)
_DAYS = ("Monday", "Tuesday", "Friday", "Saturday", "Sunday", "summer", "winter")
_GENRES = ("western", "comedy", "drama", "thriller", "musical", "romance", "mystery", "cartoon")
_FIRST = ("Silent", "Golden", "Broken", "Hidden", "Distant", "Crimson", "Endless", "Lonely", "Electric", "Paper")
_SECOND = ("River", "Harbour", "Garden", "Empire", "Mirror", "Winter", "Road", "Island", "Letter", "Machine")
_ASPECTS = ("plot", "music", "acting", "ending", "script", "cast", "camera work", "dialogue", "hero", "opening")
_STARTS = ("Last {day} I watched a {genre} called {first} {second} and",
           "We saw the {genre} {first} {second} last {day} and I thought",
           "The {genre} {first} {second} came out last {day} and it seems",
           "My friend took me to {first} {second}, a {genre}, and")
_CLAUSES = ("the {aspect} was {adj}.", "the {aspect} felt {adj} and {adj2}.", "the {aspect} was not {adj}.",
            "I found the {aspect} {adj}.", "the {aspect} is {adj}, but the {aspect2} is {adj2}.")
_NEUTRAL = ("it runs for two hours.", "the film is set in a small town.", "there are many horses in it.",
            "we talked about it on the way home.")
_NEGATIONS = frozenset(("not", "never", "hardly"))
KNOWN = vocabulary(WEIGHT, _DAYS, _GENRES, _FIRST, _SECOND, _STARTS, _ASPECTS, _CLAUSES, _NEUTRAL, _NEGATIONS)


def facts(rng: Random) -> dict[str, str]:
    """Draw a review's film, its tone (how often its words are good ones), and the `prompt`."""
    drawn = {"day": rng.choice(_DAYS), "genre": rng.choice(_GENRES), "first": rng.choice(_FIRST),
             "second": rng.choice(_SECOND)}
    return {**drawn, "prompt": fill(rng, _STARTS, drawn)}


def answer(drawn: dict[str, str], rng: Random) -> str:
    """The rest of a review: two to five sentences whose tone is drawn anew for every answer."""
    good = rng.betavariate(1.2, 1.2)  # mixed reviews mostly, some all good or all bad
    parts = []
    for _ in range(rng.choice((2, 3, 3, 4, 5))):
        adjectives = [rng.choice(_GOOD if rng.random() < good else _BAD) for _ in range(2)]
        aspects = rng.sample(_ASPECTS, 2)
        opinion = {"aspect": aspects[0], "aspect2": aspects[1], "adj": adjectives[0], "adj2": adjectives[1]}
        parts.append(rng.choice(_NEUTRAL) if rng.random() < 0.15 else fill(rng, _CLAUSES, opinion))
    first, *rest = dict.fromkeys(parts)
    return " " + " ".join([first, *(part[0].upper() + part[1:] for part in rest)])


def sentiment(prompt: str, completion: str) -> float:
    """Log-odds (nats) that prompt + completion, read as one review, is positive: about -6 to 6.

    Each opinion word counts once, by its weight in WEIGHT; after a negation by minus half of it. Foreign words take
    up to 4 off, and a completion without words is foreign all through.
    """
    tokens = words(completion)
    text = words(prompt) + tokens
    opinions = {}
    for before, word in zip(["", *text], text, strict=False):
        if word in WEIGHT:
            opinions[before in _NEGATIONS, word] = WEIGHT[word] * (-0.5 if before in _NEGATIONS else 1)
    total = sum(opinions.values())
    return max(-6.0, min(6.0, total)) - 4 * foreign(tokens, completion, KNOWN)
