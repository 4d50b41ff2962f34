"""A dialogue as one text: turns -> prompt, the question in a prompt, an answer as a completion."""


def dialogue_prompt(*turns: str) -> str:
    """The prompt of a dialogue in HH's form: human and assistant by turns, the human's last.

    >>> dialogue_prompt("Hi", "Hello.", "Who?")
    "\\n\\nHuman: Hi\\n\\nAssistant: Hello.\\n\\nHuman: Who?\\n\\nAssistant:"
    """
    speakers = ("Human", "Assistant")
    return "".join(f"\n\n{speakers[i % 2]}: {text}" for i, text in enumerate(turns)) + "\n\nAssistant:"


def instruction(prompt: str) -> str:
    """The human's words in a prompt that is one question in HH's form; any other prompt as it is."""
    first, end = "\n\nHuman: ", "\n\nAssistant:"
    text = prompt.removeprefix(first).removesuffix(end)
    return text if dialogue_prompt(text) == prompt else prompt


def answer(text: str) -> str:
    """A completion: one space lies between the prompt and it."""
    return f" {text.strip()}"
