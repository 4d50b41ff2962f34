from enum import Enum

from vllm._facts import FACTS

UsageContext = Enum("UsageContext", FACTS["members"]["vllm.usage.usage_lib:UsageContext"])
