from enum import Enum

from vllm._facts import FACTS

RequestOutputKind = Enum("RequestOutputKind", FACTS["members"]["vllm.sampling_params:RequestOutputKind"])
