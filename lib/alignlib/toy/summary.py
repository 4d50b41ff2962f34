"""The toy world's posts: someone tells what another did with a thing, to be summed up in a line."""

from __future__ import annotations

from random import Random

from alignlib.toy.words import fill, foreign, vocabulary, words

# Every fact is one word of its slot, so that a text's facts can be read off its words.
SLOTS = {
    "who": ("sister", "brother", "friend", "boss", "neighbour", "uncle"),
    "did": ("lost", "broke", "sold", "took", "burned", "hid"),
    "thing": ("bike", "phone", "lamp", "guitar", "jacket", "camera"),
    "place": ("station", "park", "office", "beach", "school", "market"),
    "feel": ("angry", "sad", "happy", "scared", "proud", "tired"),
}
SLOT_OF = {value: slot for slot, values in SLOTS.items() for value in values}
_SUBREDDITS = ("advice", "relationships", "tifu", "family", "askme", "stories")
_TITLES = ("What should I do?", "My {who} and the {thing}", "I need advice", "Is this normal?", "I feel {feel}",
           "A story from the {place}")
_MAIN = ("My {who} {did} my {thing} at the {place}.", "Last week my {who} {did} my {thing} at the {place}.")
_FEEL = ("I feel {feel}.", "It made me {feel}.")
_FILLER = ("It rained all day.", "I am twenty years old.", "We had some coffee first.", "Sorry for the long text.",
           "This was two years ago.", "It is a long story.", "I did not sleep well.",
           "Nobody else was there.", "I have a small dog.", "We talk every week.")
_ASK = ("What should I do?", "Am I wrong?", "Please help me.", "Any advice?")
_CLAUSES = ("My {who} {did} my {thing}.", "My {who} {did} my {thing} at the {place}.", "It was at the {place}.",
            "I feel {feel}.", "My {who} made me {feel}.", "I want advice about my {who}.", "The {thing} is gone.",
            "I was at the {place} with my {who}.")
KNOWN = vocabulary(*SLOTS.values(), _SUBREDDITS, _TITLES, _MAIN, _FEEL, _CLAUSES, _FILLER, _ASK)


def facts(rng: Random) -> dict[str, str]:
    """Draw a post: one value a slot, and the whole `prompt`."""
    drawn = {slot: rng.choice(values) for slot, values in SLOTS.items()}
    filler = rng.sample(_FILLER, rng.choice((0, 1, 2)))
    post = " ".join([fill(rng, _MAIN, drawn), *filler, fill(rng, _FEEL, drawn), rng.choice(_ASK)])
    title = fill(rng, _TITLES, drawn)
    return {**drawn, "prompt": f"SUBREDDIT: r/{rng.choice(_SUBREDDITS)}\nTITLE: {title}\nPOST: {post}\nTL;DR:"}


def answer(drawn: dict[str, str], rng: Random) -> str:
    """A random summary of one to four clauses, in some of them facts that are wrong, sometimes with filler.

    Half of the clauses are right: a small model learns to look facts up only where that mostly pays.
    """
    parts = []
    for _ in range(rng.choice((1, 2, 2, 3, 4))):
        facts = dict(drawn)
        if rng.random() < 0.5:
            facts |= {slot: rng.choice(SLOTS[slot]) for slot in rng.sample(list(SLOTS), 2)}
        parts.append(rng.choice(_FILLER) if rng.random() < 0.2 else fill(rng, _CLAUSES, facts))
    return " " + " ".join(dict.fromkeys(parts))


def summary(prompt: str, completion: str) -> float:
    """-4 to 2.5: .5 for each slot whose right fact is there, -.5 for each of up to four wrong facts, -.05 for each word
    over 15 (down to -1), less by twice the share of foreign words. The right facts are those in the prompt."""
    tokens = words(completion)
    stated = {token for token in tokens if token in SLOT_OF}
    true = {token for token in words(prompt) if token in SLOT_OF}
    score = 0.5 * len({SLOT_OF[fact] for fact in stated & true}) - 0.5 * min(4, len(stated - true))
    return score - min(1.0, 0.05 * max(0, len(tokens) - 15)) - 2 * foreign(tokens, completion, KNOWN)
