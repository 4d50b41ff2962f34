"""Models from folders and into folders; the devices, types and tokenizers that they are given."""

import weakref

import click
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignlib import ranks
from alignlib.models import checkpoint, load
from alignlib.models.policy import Policy, RewardModel
from alignlib.training import memory_plan
from alignlib.training.adapters import add_adapters
from alignlib.training.live_bytes import Live
from helpers import tiny
from helpers.commands import lines, one_line, run

# -- what they are given ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["banana", "cuda:x", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(click.UsageError, match=f"--device {name}: "):
        load.device_for(name)
    assert load.device_for("cpu").type == "cpu"


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused():
    """Added ones excepted: many a model has never had its tokenizer's padding."""
    size = tiny.tokenizer().vocab_size
    load.build_encoder(tiny.config("llama", vocab_size=tiny.tokenizer().pad_token_id), tiny.tokenizer())
    with pytest.raises(click.UsageError, match=f"a tokenizer of {size} tokens, a model of {size - 1}"):
        load.build_encoder(tiny.config("llama", vocab_size=size - 1), tiny.tokenizer())


@pytest.mark.slow
def test_an_encoder_knows_the_model_s_rows(tmp_path):
    """A token that was added to the tokenizer alone is named with its record, in whatever command reads it."""
    words, size = tiny.tokenizer(), len(tiny.tokenizer())
    words.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    policy = tiny.save(tiny.causal("llama"), tmp_path / "policy", words)
    reward = tiny.save(tiny.classifier("llama"), tmp_path / "reward", words)
    records = lines({"prompt": "the", "completions": ["a", "b"], "rewards": [1, 0], "chosen": "a", "rejected": "b"}) * 2
    records += lines({"prompt": "the<|tool|>", "completions": ["a", "b"], "rewards": [1, 0], "chosen": "a",
                      "rejected": "b"})
    for command in (("al-sample", policy, "-m", 2), ("al-score", policy, "--logps"), ("al-score", reward),
                    ("al-args", policy, reward, "-m", 2), ("al-sft", policy, "-o", tmp_path / "sft"),
                    ("al-train-rm", policy, "-o", tmp_path / "rm")):
        done = run(*command, "--control-tokens", stdin=records)
        assert done.returncode == 65, command
        assert one_line(done.stderr) == (f"{command[0]}: <stdin>:3: token {size} (<|tool|>) has no row in the model, "
                                         f"which knows {size} tokens")


# -- folders ----------------------------------------------------------------------------------------------------


def test_what_is_saved_loads_with_from_pretrained(tmp_path):
    policy = Policy(tiny.causal("llama", tie_word_embeddings=True), tiny.tokenizer())
    load.save(policy, tmp_path / "policy")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    torch.testing.assert_close(again.state_dict(), policy.core.state_dict(), rtol=0, atol=0)
    assert load.load_policy(str(tmp_path / "policy")).tokenizer("the").input_ids == policy.tokenizer("the").input_ids
    reward = RewardModel(tiny.classifier("opt"), tiny.tokenizer())
    load.save(reward, tmp_path / "reward")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    torch.testing.assert_close(again.state_dict(), reward.core.state_dict(), rtol=0, atol=0)


def test_encoders_are_asked_as_they_were_trained(tmp_path):
    """A BERT classifier: framed, padded, masked; the numbers of its own tokenizer's rows."""
    import transformers
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers import models as token_models

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a"])}
    inner = Tokenizer(token_models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor, inner.decoder = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)), decoders.WordPiece()
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, cls_token="[CLS]", sep_token="[SEP]",
                                                 pad_token="[PAD]", unk_token="[UNK]", model_max_length=14)
    config = transformers.BertConfig(vocab_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                     intermediate_size=48, max_position_embeddings=16, num_labels=2,
                                     initializer_range=0.3)
    torch.manual_seed(0)
    folder = tiny.save(transformers.BertForSequenceClassification(config).eval(), tmp_path / "bert", words)
    reward = load.load_reward(folder, "cpu", "fp32")
    encoder = load.encoder_for(reward)
    assert encoder.max_length == 14  # the tokenizer's limit, under the 16 positions of the model
    record, texts = {"prompt": "a good", "finish_reasons": ["length", "stop", "stop"]}, [" film", " bad bad film a", ""]
    with torch.no_grad():
        logits = reward.logits(reward.pack([encoder.encode(record, texts)]))
        wanted = [reward.core(**words("a good" + text, return_tensors="pt")).logits[0] for text in texts]
    torch.testing.assert_close(logits, torch.stack(wanted), rtol=1e-5, atol=1e-5)


# -- what saving takes ------------------------------------------------------------------------------------------


class LiveOnDevice(Live):
    """Of the tensors that come into being those that are not on a CPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        there = [one for one in tree_iter(result) if isinstance(one, torch.Tensor) and one.device.type != "cpu"]
        super().__torch_dispatch__(lambda: there, types)
        return result


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("how", [{"lora": 2}, {"lora": 2, "dtype": "fp32"}, {"zero": 2}, {}])
def test_a_device_need_not_hold_a_second_model(how, tied):
    """On paper, as no GPU need be here: one layer's change at a time is made there, all else in the host's memory."""
    recipe = tiny.recipe("x", **{"dtype": "bf16", **how})
    config = tiny.config("llama", dtype="bfloat16", architectures=["LlamaForCausalLM"], tie_word_embeddings=tied)
    model = memory_plan.blueprint(config, recipe, narrow=recipe.zero is not None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.model.to_empty(device="cuda")
        model.core.tie_weights()
        assert model.device.type == "cuda"
        # torch makes no graph over a device that it was not built for
        with torch.no_grad(), LiveOnDevice([*model.model.parameters(), *model.model.buffers()]) as there:
            weights = checkpoint.cast(load.merged_weights(model), torch.bfloat16)
        change = 4 * max(layer.weight.numel() for layer in model.body.modules() if isinstance(layer, torch.nn.Linear))
        assert there.most <= (2 * change if recipe.lora else 0)  # before and after it is scaled
        assert {(weight.device.type, weight.dtype) for weight in weights.values()} == {("cpu", torch.bfloat16)}
        assert (weights["lm_head.weight"] is weights["model.embed_tokens.weight"]) == tied


def test_a_rank_that_writes_nothing_gathers_nothing(monkeypatch):
    policy = Policy(tiny.causal("llama"), tiny.tokenizer(), train=True)
    add_adapters(policy, tiny.recipe("x", lora=2))
    weights = load.merged_weights(policy)
    assert weights.keys() == tiny.causal("llama").state_dict().keys()
    assert not any(weight.requires_grad for weight in weights.values())  # else adapters would stay with their graph
    monkeypatch.setattr(ranks, "first", lambda: False)
    assert load.merged_weights(policy) == {}


def test_what_is_cast_gives_its_memory_back():
    """One by one; two names of one tensor stay so, two tensors of one memory stay two."""
    tensors = [torch.full((64, 64), float(number)) for number in range(6)]
    weights = {str(number): tensor for number, tensor in enumerate(tensors)}
    weights |= {"tied": tensors[0].detach(), "row": tensors[1][0], "count": torch.arange(3), "none": torch.ones(0)}
    wanted = {name: weight.bfloat16() if weight.is_floating_point() else weight for name, weight in weights.items()}
    gone = [weakref.ref(tensor.untyped_storage()) for tensor in tensors]
    del tensors
    cast = checkpoint.cast(weights, torch.bfloat16)
    assert cast is weights and cast["tied"] is cast["0"]
    torch.testing.assert_close(cast, wanted, rtol=0, atol=0)
    assert not any(ref() for ref in gone)
