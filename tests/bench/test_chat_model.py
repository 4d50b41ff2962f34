"""A real chat model against transformers' own, in float32: make bench-real MODEL=folder PAIRS=file.

PAIRS are conversations with chosen and rejected (al-data hh --chat). Of the first fifty: greedy ids, log-probabilities,
and the scores of a reward model with the model's body and a random head.
"""

import itertools
import os

import pytest
import torch
import transformers

from alignlib.decoding import sampler
from alignlib.decoding.draws import Draw, Sampling, prompt_ids
from alignlib.models import load
from alignlib.models.policy import RewardModel
from alignlib.models.scoring import PackScorer
from alignlib.records.conversations import read_all

NEW, COUNT = 24, 50
MODEL, PAIRS = os.environ.get("MODEL", ""), os.environ.get("PAIRS", "")
pytestmark = pytest.mark.skipif(not (MODEL and PAIRS), reason="needs MODEL=folder and PAIRS=file")


@pytest.fixture(scope="module")
def records():
    records = [line.record for line in itertools.islice(read_all([PAIRS]), COUNT)]
    assert all("messages" in record for record in records), f"{PAIRS}: no conversations; al-data hh --chat makes them"
    return records


@pytest.fixture(scope="module")
def policy():
    return load.load_policy(MODEL, "cpu", "fp32")


def test_greedy_ids(policy, records):
    encoder, how = load.encoder_for(policy, max_length=1024), Sampling(NEW, temperatures=(0.0,))
    draws = [Draw(i, 0, prompt_ids(encoder, record, None), 0.0) for i, record in enumerate(records)]
    for batch in sampler.batches(draws, 8192, NEW):
        sampler.generate(policy, encoder, batch, how)
    plain = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    words = policy.tokenizer
    for draw, record in zip(draws, records, strict=True):
        inputs = words.apply_chat_template(record["messages"], add_generation_prompt=True, return_tensors="pt")
        ids = inputs["input_ids"]
        assert draw.prompt == ids[0].tolist()
        with torch.no_grad():
            generated = plain.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW)
        ended = draw.ids + ([] if draw.end is None else [draw.end])
        assert ended == generated[0, ids.shape[1]:].tolist()


def test_log_probabilities(policy, records):
    encoder = load.encoder_for(policy, max_length=1024)
    examples = [encoder.encode(record, [record["chosen"], record["rejected"]]) for record in records]
    scorer = PackScorer(policy, lambda batch: {"logps": policy.logps(batch)}, 2048)
    plain = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    for example, row in zip(examples, scorer.score(examples), strict=True):
        for completion, logp in zip(example.completions, row["logps"], strict=True):
            ids = torch.tensor([example.prompt + completion])
            with torch.no_grad():
                logits = plain(ids).logits[0, len(example.prompt) - 1:-1].log_softmax(-1)
            own = logits.gather(1, ids[0, len(example.prompt):, None]).sum().item()
            assert logp == pytest.approx(own, rel=1e-4, abs=1e-4)


def test_scores_of_others_reward_model(records, tmp_path):
    torch.manual_seed(0)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=1, dtype=torch.float32)
    plain.eval().score.weight.data.normal_(0, 0.1)
    plain.save_pretrained(tmp_path)
    words = transformers.AutoTokenizer.from_pretrained(MODEL)
    words.save_pretrained(tmp_path)
    reward: RewardModel = load.load_reward(str(tmp_path), "cpu", "fp32")
    encoder = load.encoder_for(reward, max_length=1024)
    examples = [encoder.encode(record, [record["chosen"], record["rejected"]]) for record in records]
    scorer = PackScorer(reward, lambda batch: {"rewards": reward.scores(batch)}, 2048)
    for record, row in zip(records, scorer.score(examples), strict=True):
        for name, score in zip(("chosen", "rejected"), row["rewards"], strict=True):
            turns = [*record["messages"], {"role": "assistant", "content": record[name]}]
            inputs = words.apply_chat_template(turns, return_dict=True, return_tensors="pt")
            with torch.no_grad():
                assert score == pytest.approx(plain(**inputs).logits[0, 0].item(), abs=1e-4)
