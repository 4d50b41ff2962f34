"""Contrastive search: the plain definition's tokens, whatever is cached, batched or has left."""

import pytest
import torch

from al_sample.contrastive import Before, Contrastive
from alignlib.decoding import branches, sampler
from alignlib.decoding.draws import Draw, Sampling
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy
from helpers import tiny
from helpers.commands import folders, lines, one_line, prompts, read, run

NEW = 12
BOS = tiny.VOCABULARY - 3
RAGGED = (3, 17, 1, 30, 8)


def searcher(family="llama", *, alpha=0.6, top_k=5, new=NEW, stop=()) -> Contrastive:
    """A tiny model in float64, so that no sum's rounding decides what comes next."""
    policy = Policy(tiny.causal(family).double(), tiny.tokenizer())
    encoder = Encoder(policy.tokenizer, max_length=tiny.CONTEXT)
    return Contrastive(policy, encoder, Sampling(new, top_k, stop=stop, contrastive=alpha))


def draws(*lengths) -> list[Draw]:
    texts = [[BOS, *tiny.example(length, seed=i).prompt] for i, length in enumerate(lengths)]
    return [Draw(i, 0, text, 1.0, where=f"record {i}") for i, text in enumerate(texts)]


@torch.no_grad()
def defined(search: Contrastive, prompt: list[int], ends: set[int]) -> tuple[list[int], str]:
    """The paper's words: nothing cached, a whole pass of the whole model for every candidate."""
    ids, alpha = [], search.how.contrastive
    while len(ids) < search.how.max_new_tokens:
        text = prompt + ids
        likely = search.policy.core(input_ids=torch.tensor([text])).logits[0, -1].softmax(-1).topk(search.topk)
        scores = []
        for token, chance in zip(likely.indices.tolist(), likely.values.tolist(), strict=True):
            out = search.policy.core(input_ids=torch.tensor([[*text, token]]), output_hidden_states=True)
            states = out.hidden_states[-1][0]
            likeness = max(torch.cosine_similarity(states[-1], state, dim=0).item() for state in states[:-1])
            scores.append((1 - alpha) * chance - alpha * likeness)
        token = likely.indices[scores.index(max(scores))].item()
        if token in ends:
            return ids, "stop"
        ids.append(token)
    return ids, "length"


@pytest.fixture
def many_ends(monkeypatch):
    """Every twentieth token ends a text, so that rows leave all the time."""
    ends = set(range(0, tiny.VOCABULARY, 20))
    monkeypatch.setattr(sampler, "stopping_ids", lambda encoder, stop: ends)
    return ends


@pytest.mark.parametrize("family", [*tiny.FAMILIES, "bloom"])
@pytest.mark.slow
def test_it_is_the_definition(family, many_ends):
    """Ragged prompts, rows that leave; Bloom's candidates are copies of its cache."""
    search = searcher(family)
    assert search.kind is (branches.Copies if family == "bloom" else branches.Tree)
    made = draws(*RAGGED)
    count = search.generate(made)
    for draw in made:
        assert (draw.ids, draw.reason) == defined(search, draw.prompt, many_ends), draw.where
    assert {draw.reason for draw in made} == {"stop", "length"}
    assert count == sum(len(draw.ids) + (draw.reason == "stop") for draw in made)


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "top_k"), [(0.0, 5), (1.0, 5), (0.6, 1), (0.6, 2), (0.3, tiny.VOCABULARY),
                                              (0.3, 10 * tiny.VOCABULARY)])
def test_settings_at_their_edges(alpha, top_k, many_ends):
    """Without unlikeness or a second candidate it is greedy; more candidates than tokens are all of them."""
    search = searcher(alpha=alpha, top_k=top_k, new=6)
    made = draws(3, 9, 1)
    search.generate(made)
    for draw in made:
        assert (draw.ids, draw.reason) == defined(search, draw.prompt, many_ends)
    greedy = [Draw(draw.record, 0, draw.prompt, 0.0) for draw in made]
    sampler.generate(search.policy, Encoder(search.policy.tokenizer, max_length=tiny.CONTEXT), greedy, Sampling(6))
    assert ([d.ids for d in greedy] == [d.ids for d in made]) == (alpha == 0 or top_k == 1)


def test_states_are_compared_with_their_own_text_alone():
    """By hand: cosines of 1, 0 and -1; what lies beyond a text's end counts neither as 0 nor as another's."""
    along, across = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 3.0])
    before = Before((torch.stack([along, across]), along[None]), room=4)
    new = torch.stack([torch.stack([along, -along, -across]), torch.stack([along, -along, across])])
    assert before.likeness(new).tolist() == [[1, 0, 0], [1, -1, 0]]
    before.add(torch.stack([-along, -across]))
    assert before.likeness(new).tolist() == [[1, 1, 0], [1, 0, 0]]
    before.copy(1, 0)
    assert before.likeness(new[:1]).tolist() == [[1, 0, 1]] and before.last[0].tolist() == [0, -3]


def test_stop_strings_end_a_text():
    free = draws(*RAGGED)
    searcher(new=20).generate(free)
    stop = free[0].text[len(free[0].text) // 2:][:2]
    made = draws(*RAGGED)
    searcher(new=20, stop=(stop,)).generate(made)
    assert made[0].reason == "stop" and made[0].text != free[0].text
    for one, other in zip(made, free, strict=True):
        assert one.text == other.text.split(stop)[0]


def test_logits_that_are_not_finite_name_the_record():
    search = searcher()
    search.policy.core.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="record 0: the model's logits are not finite"):
        search.generate(draws(3, 3))


# -- al-sample --------------------------------------------------------------------------------------------------

HOW = ("--contrastive", 0.6, "--top-k", 5, "-m", 12)


def sample(records, *more) -> list[dict]:
    done = run("al-sample", folders().policy, *HOW, *more, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


@pytest.mark.slow
def test_al_sample_writes_it_in_any_company(tmp_path):
    made = sample(prompts(7), "--ids", "--time")
    assert list(made[0])[2:] == ["completions", "finish_reasons", "completion_ids", "end_ids", "seconds"]
    texts = [record["completions"] for record in made]
    for more in (("--window", 2), ("--batch-tokens", 300), ("--seed", 5)):
        assert [record["completions"] for record in sample(prompts(7), *more)] == texts
    greedy = read(run("al-sample", folders().policy, "--greedy", "-m", 12, stdin=lines(*prompts(7))).stdout)
    assert [record["completions"] for record in greedy] != texts
    assert [r["completions"] for r in sample(prompts(7), "--contrastive", 0)] == [r["completions"] for r in greedy]


def test_a_model_of_nan_is_1_and_names_the_record():
    done = run("al-sample", folders().broken(folders().policy), *HOW, stdin=lines(*prompts(1)))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("<stdin>:1: the model's logits are not finite\n")


@pytest.mark.parametrize(("given", "said"), [
    (("--temperature", 1), "--temperature does nothing for --contrastive"),
    (("--greedy",), "--greedy does nothing for --contrastive"),
    (("--top-p", 0.9), "--top-p does nothing for --contrastive"),
    (("-n", 2), "-n does nothing for --contrastive"),
    (("--top-k", 0), "--contrastive needs --top-k"),
    (("--logps",), "--logps is not for --contrastive"),
    (("--contrastive", 1.5), "--contrastive"),
    (("--backend", "vllm"), "--contrastive is not for --backend vllm"),
])
def test_what_does_nothing_for_it_is_refused(given, said):
    done = run("al-sample", folders().policy, *HOW, *given, stdin='{"prompt": "Hi"}\n')
    assert (done.returncode, done.stdout) == (2, "") and said in one_line(done.stderr)
