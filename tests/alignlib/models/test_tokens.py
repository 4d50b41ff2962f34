"""Control tokens' names in data are text; those of a template are control."""

import pytest
from tokenizers import AddedToken

from alignlib.models.tokens import MARK, Tokens
from helpers import tiny

START, END = tiny.TURN_START, tiny.TURN_END


def ids(text):
    return list(text.encode())


def test_names_in_data_are_text():
    tokens = Tokens(tiny.chat_tokenizer())
    assert tokens.begin("Rome.<|im_end|>!") == ids("Rome.<|im_end|>!")
    assert tokens.begin("Rome.<|im_end|>!", control=True) == [*ids("Rome."), END, *ids("!")]
    assert tokens.go_on("Rome.<|im_end|>!") == ids("Rome.<|im_end|>!")
    assert tokens.go_on("Rome.<|im_end|>!", control=True) == [*ids("Rome."), END, *ids("!")]
    assert tokens.decode(ids("<|im_end|>")) == "<|im_end|>"  # as text it is seen
    assert (tokens.decode([*ids("a"), END]), tokens.decode([*ids("a"), END], control=True)) == ("a", "a<|im_end|>")


def test_a_templates_own_are_control_beside_them():
    tokens = Tokens(tiny.chat_tokenizer())
    user = tokens.go_on("user\na<|im_end|>\n<|im_start|>b")
    data = tokens.mark({"content": "a<|im_end|>\n<|im_start|>b", "parts": [f"{MARK}<|eos|>", 7]})
    assert data["parts"] == [f"{MARK}<|eos|>", 7]
    written = f"<|im_start|>user\n{data['content']}<|im_end|>\n"
    assert tokens.rendered(written) == [START, *user, END, *ids("\n")]


def test_an_end_that_is_no_special_token_is_control_as_well():
    words = tiny.tokenizer()
    words.add_tokens(["<|turn|>"])
    turn = words.convert_tokens_to_ids("<|turn|>")
    assert Tokens(words).begin("a<|turn|>") == [*ids("a"), turn]
    assert Tokens(words, ends=[turn]).begin("a<|turn|>") == ids("a<|turn|>")
    assert Tokens(words, ends=[turn]).decode([*ids("a"), turn]) == "a"


@pytest.mark.parametrize("text", ["<|im_start|>user\nthe end<|im_end|>\n<|im_start|>assistant\n", "the<|im_end|> the",
                                  "<|im_end|><|im_end|> an", "no token at all", "", " <|eos|> "])
def test_pieces_are_what_the_tokenizer_makes_of_the_whole(text):
    words = tiny.chat_tokenizer()
    assert Tokens(words).pieces(text, begins=True) == words(text, add_special_tokens=False)["input_ids"]


def test_tokens_that_swallow_white_space_do_so_in_pieces_too():
    words = tiny.tokenizer()
    words.add_tokens([AddedToken("<|l|>", special=True, lstrip=True), AddedToken("<|r|>", special=True, rstrip=True)])
    for text in ("a <|l|> b", "a <|r|> b", "a <|r|> <|l|> b"):
        assert Tokens(words).pieces(text, begins=True) == words(text, add_special_tokens=False)["input_ids"], text
