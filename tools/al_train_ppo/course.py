"""The course of on-policy training: each step draws a rollout, has it judged, and learns from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from al_train_ppo import advantages
from al_train_ppo.objective import Surrogate, ValueLoss, values_of
from al_train_ppo.rollout import (
    Prompt,
    Rollout,
    draw,
    how_to_draw,
    logged,
    of_all_ranks,
    read_tokens,
    seed_of,
    with_rewards,
)
from al_train_ppo.settings import Settings
from alignlib.cli import bars
from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.models.policy import Policy, RewardModel
from alignlib.records.jsonl import Record, dumps
from alignlib.records.output import Output
from alignlib.records.shown import say
from alignlib.training.adapters import add_adapters
from alignlib.training.batches import Batches, Shuffled, mixed
from alignlib.training.engine import Engine
from alignlib.training.loop import Halted, prepare
from alignlib.training.objective import Objective
from alignlib.training.passes import pass_back
from alignlib.training.recipe import Recipe
from alignlib.training.run_folder import Run
from alignlib.training.zero import asking_engine_for, engine_for

Judge = Callable[[Sequence[str], Sequence[Record]], list[list[float]]]  # where they stand, and they with completions
LOGGED = 4  # records a rollout in --log-samples
LARGEST_REWARD = 1e15  # sums of such squares are finite in float32
HELD_OUT = -1  # the number of the rollout whose draws are those of the held-out prompts


@dataclass
class Reference:
    """What log-probabilities are compared with: another model, or the policy itself with its adapter off."""

    model: Policy
    adapter_off: bool = False

    def asked(self) -> Any:
        """The context in which the model is the reference."""
        return self.model.model.disable_adapter() if self.adapter_off else nullcontext()


@dataclass
class Likelihood(Objective[Policy]):
    """-log pi of texts that are learnt beside, a mean over tokens."""

    def size(self, example: Example) -> float:
        return len(example.completions[0])

    def __call__(self, model: Policy, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return -model.token_logps(batch).sum(), {}


@dataclass
class OnPolicy:
    """A Course whose examples are drawn as it goes (loop.Course).

    judge      what records with completions are worth: a list of numbers each, the sum of all rewards; on every rank
    ptx        examples whose likelihood is learnt beside
    samples    where some records of each rollout go, on the first rank
    """

    policy: Policy
    encoder: Encoder
    settings: Settings
    recipe: Recipe
    prompts: Sequence[Prompt]
    held_out: Sequence[Prompt]
    judge: Judge
    reference: Reference | None = None
    critic: RewardModel | None = None
    critic_recipe: Recipe | None = None
    ptx: Sequence[Example] = ()
    samples: Output | None = None
    objective: Surrogate = field(init=False)
    value_loss: ValueLoss = field(init=False)
    order: Batches = field(init=False)

    def __post_init__(self) -> None:
        self.objective = Surrogate(self.settings)
        self.value_loss = ValueLoss(self.settings.clip_value)
        recipe = vars(self.recipe) | {"batch_size": min(self.settings.prompts, len(self.prompts))}
        self.order = Batches(Shuffled(len(self.prompts)), Recipe(**recipe))
        self.ptx_order = Batches(Shuffled(len(self.ptx)), self.recipe) if self.ptx else None
        self.seconds: dict[str, float] = {}

    # -- what a Course is ----------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        return len(self.order)

    @property
    def an_epoch(self) -> int:
        return self.order.an_epoch

    @property
    def updates(self) -> int:
        return self.updates_before(self.steps)

    def updates_before(self, step: int) -> int:
        """Those of the steps before this one: all rollouts have as many but an epoch's last, which may be small."""
        epoch, place = divmod(step, self.an_epoch)
        last = len(self.prompts) - (self.an_epoch - 1) * self.order.size  # prompts
        whole, least = (self.settings.passes * math.ceil(prompts / self.size) for prompts in (self.order.size, last))
        return epoch * ((self.an_epoch - 1) * whole + least) + place * whole

    @property
    def size(self) -> int:
        """Prompts an update."""
        return max(1, self.recipe.batch_size // self.settings.number)

    @property
    def judged(self) -> bool:
        return bool(self.held_out)

    def begin(self, run: Run) -> None:
        if self.critic and self.critic_recipe:
            place = run.checkpoint / "critic" if run.checkpoint else None
            add_adapters(self.critic, self.critic_recipe)
            prepare(self.critic, self.critic_recipe)
            self.critic_engine = engine_for(self.critic, self.critic_recipe, self.updates, place)
            if place:
                self.critic_engine.load(place)
            run.beside["critic"] = self.critic, self.critic_engine
        if self.reference and not self.reference.adapter_off:
            self.reference_engine: Any = asking_engine_for(self.reference.model, self.recipe)

    def learn(self, step: int, engine: Engine) -> dict[str, Any]:
        self.seconds = {"sampling": 0.0, "scoring": 0.0, "learning": 0.0}
        prompts = [self.prompts[i] for i in self.order.at(step)]
        rollout = self.judged_rollout(prompts, self.settings.number, seed_of(self.recipe.seed, step))
        with self.timed("learning"):
            batches = self.minibatches(step, len(prompts))
            each_once = batches[:max(1, len(batches) // self.settings.passes)]
            # With one update there is no policy but the old one: its loss's own pass says what advantages do not ask.
            beforehand = len(batches) > 1 or (self.reference and self.settings.method != "grpo")
            self.read(rollout, each_once, engine, old=bool(beforehand))
            if self.critic:
                rollout.tokens["values"] = self.reader(rollout, each_once)(
                    self.critic, self.critic_engine, measure=partial(values_of, self.critic))
            figures = self.weigh(rollout)
            figures |= self.update(rollout, batches, step, engine)
            if "old" not in rollout.tokens:
                rollout.tokens["old"] = of_all_ranks(self.objective.seen)
                figures |= self.known(rollout)
        figures |= {f"seconds_{name}": round(seconds, 2) for name, seconds in self.seconds.items()}
        if self.samples:
            self.samples.write(b"".join(map(dumps, logged(rollout, step + 1, self.settings.temperature, LOGGED))))
        return figures

    def evaluate(self, engine: Engine, bar: bars.Bar) -> dict[str, float]:
        """One answer to each held-out prompt, always by the same random numbers."""
        bar.say(f"evaluating on {len(self.held_out)} prompts")
        rollout = self.judged_rollout(self.held_out, 1, seed_of(self.recipe.seed, HELD_OUT))
        figures = {"reward": rollout.rewards.mean().item(), "length": rollout.lengths.double().mean().item()}
        if self.reference:
            self.read(rollout, [range(len(rollout.examples))], engine)
            figures["kl"] = kl(rollout)
        return figures

    # -- a step -------------------------------------------------------------------------------------------

    def judged_rollout(self, prompts: Sequence[Prompt], number: int, seed: int) -> Rollout:
        """Answers to the prompts, so many each, with their rewards. Raises Halted."""
        with self.timed("sampling"):
            rollout = draw(self.policy, self.encoder, prompts, how_to_draw(self.settings, number, seed), self.recipe)
        with self.timed("scoring"):
            rows = self.judge([prompt.where for prompt in prompts], rollout.records)
            for prompt, row in zip(prompts, rows, strict=True):
                if not max(map(abs, row)) <= LARGEST_REWARD:
                    raise Halted(f"{prompt.where}: a reward of {max(row, key=abs):g}: beyond {LARGEST_REWARD:g}, its "
                                 "square is too much for a model's arithmetic")
        return with_rewards(rollout, torch.tensor(rows, dtype=torch.float64), self.settings)

    def minibatches(self, step: int, prompts: int) -> list[list[int]]:
        """The prompts of each update: --passes over the rollout, each in an order of its own."""
        batches = []
        for number in range(self.settings.passes):
            seed = mixed(self.recipe.seed, step * self.settings.passes + number)
            order = torch.randperm(prompts, generator=torch.Generator().manual_seed(seed)).tolist()
            batches += [order[i:i + self.size] for i in range(0, prompts, self.size)]
        return batches

    def reader(self, rollout: Rollout, batches: Sequence[Sequence[int]]) -> Callable[..., list[Tensor]]:
        return partial(read_tokens, examples=rollout.examples, batches=batches, recipe=self.recipe)

    def read(self, rollout: Rollout, batches: Sequence[Sequence[int]], engine: Engine, *, old: bool = True) -> None:
        """The log-probabilities of every token under the reference; and the policy's, before anything is learnt."""
        read, temperature = self.reader(rollout, batches), self.settings.temperature
        if old:
            rollout.tokens["old"] = read(self.policy, engine, measure=partial(self.policy.token_logps,
                                                                              temperature=temperature))
        if self.reference:
            other = self.reference.model
            with self.reference.asked():
                rollout.tokens["reference"] = read(other, engine if self.reference.adapter_off else
                                                   self.reference_engine,
                                                   measure=partial(other.token_logps, temperature=temperature))

    def weigh(self, rollout: Rollout) -> dict[str, Any]:
        """Give the answers their advantages: the rollout's figures."""
        settings, scores = self.settings, rollout.scores
        equal = int((scores == scores[:, :1]).all(1).sum()) if settings.number > 1 else 0
        figures: dict[str, Any] = {"reward": rollout.rewards.mean().item(),
                                   "length": rollout.lengths.double().mean().item(),
                                   "share_cut": rollout.share_cut(), **self.known(rollout)}
        if settings.number > 1:
            figures["equal_groups"] = equal
        self.remember(scores, equal)
        if settings.method == "ppo":
            return figures | self.weigh_tokens(rollout)
        if settings.method == "rloo":
            if self.reference:
                apart = (rollout.padded("old") - rollout.padded("reference")).sum(1).view(scores.shape)
                scores = scores - self.objective.kl_coef * apart
            gains = advantages.leave_one_out(scores)
        else:
            gains = advantages.group_relative(scores, scaled=settings.scaled)
        for example, row in zip(rollout.examples, gains.tolist(), strict=True):
            example.values["advantages"] = row
        return figures

    def known(self, rollout: Rollout) -> dict[str, float | None]:
        """What the policy's log-probabilities say; None while they are not there."""
        there = "old" in rollout.tokens
        figures: dict[str, float | None] = {"entropy": entropy(rollout) if there else None}
        return figures | ({"kl": kl(rollout) if there else None} if self.reference else {})

    def remember(self, scores: Tensor, equal: int) -> None:
        """Keep count of what rewards there were, for the end."""
        state, low, high = self.objective.state, scores.min().item(), scores.max().item()
        state |= {"lowest": min(state.get("lowest", low), low), "highest": max(state.get("highest", high), high),
                  "groups": state.get("groups", 0) + len(scores), "equal": state.get("equal", 0) + equal}

    def tell_what_never_differed(self) -> None:
        """Warn of a run whose rewards were all the same, or all those of a prompt's answers: it has learnt nothing."""
        state = self.objective.state
        if state["lowest"] == state["highest"]:
            say(f"warning: every answer's reward was {state['lowest']:g}: there was nothing to learn from it")
        elif state["equal"] == state["groups"] and self.settings.method != "ppo":
            say(f"warning: the rewards of a prompt's answers never differed, in {state['groups']:,} groups: there was "
                "nothing to learn from them")

    def weigh_tokens(self, rollout: Rollout) -> dict[str, Any]:
        """PPO's advantages and returns of every token."""
        settings, values = self.settings, rollout.padded("values")
        old = rollout.padded("old") if self.reference else torch.zeros_like(values)
        other = rollout.padded("reference") if self.reference else old
        rewards = advantages.token_rewards(rollout.scores.flatten(), old, other, rollout.lengths.flatten(),
                                           self.objective.kl_coef)
        gains, returns = advantages.generalized(rewards, values, settings.gamma, settings.smoothing)
        rollout.put("advantages", gains)
        rollout.put("returns", returns)
        if settings.whiten:
            whole = advantages.whitened(torch.cat(rollout.tokens["advantages"]).double()).float()
            rollout.tokens["advantages"] = list(whole.split([len(part) for part in rollout.tokens["advantages"]]))
        known = advantages.explained_variance(*(torch.cat(rollout.tokens[name]) for name in ("values", "returns")))
        return {"explained_variance": known}

    def update(self, rollout: Rollout, batches: Sequence[Sequence[int]], step: int, engine: Engine) -> dict[str, Any]:
        """Learn from the rollout, a minibatch an update: the mean of the updates' figures."""
        self.objective.rollout, self.objective.seen, self.value_loss.rollout = rollout, {}, rollout
        taken: list[dict[str, Any]] = []
        for number, indices in enumerate(batches):
            figures: dict[str, Any] = pass_back(indices, self.policy, rollout.examples, self.objective, self.recipe,
                                                engine, last=not self.ptx)
            if self.ptx and self.ptx_order:
                beside = self.ptx_order.at(self.updates_before(step) + number)
                likely = pass_back(beside, self.policy, self.ptx, Likelihood(), self.recipe, engine,
                                   weight=self.settings.ptx_coef)
                figures |= {"ptx_loss": likely["loss"], "tokens": figures["tokens"] + likely["tokens"]}
            figures |= engine.step()
            if self.critic and self.critic_recipe:
                value = pass_back(indices, self.critic, rollout.examples, self.value_loss, self.critic_recipe,
                                  self.critic_engine)
                figures |= {"value_loss": value["loss"], "critic_grad_norm": self.critic_engine.step()["grad_norm"]}
            taken.append(figures)
        means = {name: fmean(known) if (known := [one[name] for one in taken if one[name] is not None]) else None
                 for name in taken[0]}
        return {**means, "lr": taken[-1]["lr"], "tokens": int(sum(one["tokens"] for one in taken))}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def entropy(rollout: Rollout) -> float:
    """Nats a token, estimated by the tokens that were drawn."""
    return -fmean(torch.cat(rollout.tokens["old"]).tolist() or [0.0])


def kl(rollout: Rollout) -> float:
    """KL(pi || pi_ref) of whole answers, in nats: the mean over draws of log pi - log pi_ref."""
    return (rollout.padded("old") - rollout.padded("reference")).sum(1).mean().item()
