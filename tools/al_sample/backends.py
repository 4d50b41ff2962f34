"""What runs the model for al-sample: one protocol, and the sampler of each backend. No torch until one is chosen."""

from collections.abc import Generator
from typing import Any, Protocol

from alignlib.decoding.conditions import Condition
from alignlib.decoding.draws import Draw, Sampling
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream


class Sampler(Protocol):
    """Draws completions, whatever runs the model."""

    def prepare(self, record: Record) -> object:
        """What it needs of a record (`Line.data`). Raises ValueError for one that it cannot sample from."""

    def draws(self, stream: Stream) -> Generator[tuple[Line, list[Draw]], None, None]:
        """Every line with its draws, in the input's order, each as soon as it is done."""

    def counts(self) -> dict[str, int]:
        """What the summary says besides the records."""


def sampler_for(backend: str, model: str, how: Sampling, condition: Condition | None,
                settings: dict[str, Any]) -> Sampler:
    """The backend's sampler; `settings` holds the options of all of them. Raises UsageError."""

    def take(*names: str) -> dict[str, Any]:
        return {name: settings[name] for name in names}

    if backend == "openai":
        from al_sample import backend_server
        from alignlib.server.client import Client

        client = Client(settings["base_url"], **take("concurrency", "timeout", "retries", "max_answer"))
        return backend_server.Sampler(model, how, client, condition=condition,
                                      **take("window", "api", "parameters"))
    local = take("logps", "window", "dtype", "max_prompt", "keep_prompt", "on_long", "template",
                 "template_args", "control_tokens")
    if backend == "vllm":
        from al_sample import backend_vllm

        own = take("files", "eager", "tensor_parallel", "data_parallel", "gpu_memory", "max_model_len")
        return backend_vllm.Sampler(model, how, condition=condition, **local, **own)
    from al_sample import backend_hf

    return backend_hf.Sampler(model, how, condition=condition, **local, **take("batch_tokens", "device"))
