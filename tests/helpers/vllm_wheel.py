"""What the released vLLM takes and gives, read from its wheel without importing it: `python tests/vllm_wheel.py WHEEL`.

Writes vllm_facts.json: the parameters of every callable that --backend vllm uses, the members of every class whose
attributes it reads. The stand-in in standin/ takes and gives nothing else.
"""

import ast
import json
import re
import sys
import zipfile
from pathlib import Path

FACTS = Path(__file__).with_name("vllm_facts.json")
CALLED = ("vllm:AsyncEngineArgs", "vllm:SamplingParams", "vllm.inputs:tokens_input",
          "vllm.v1.engine.async_llm:AsyncLLM.from_engine_args", "vllm.v1.engine.async_llm:AsyncLLM.generate",
          "vllm.v1.engine.async_llm:AsyncLLM.shutdown")
READ = ("vllm.sampling_params:RequestOutputKind", "vllm.usage.usage_lib:UsageContext", "vllm.outputs:RequestOutput",
        "vllm.outputs:CompletionOutput")
ENVIRONMENT = ("VLLM_LOGGING_STREAM", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS",
               "VLLM_WORKER_MULTIPROC_METHOD")


class Wheel:
    def __init__(self, path: str | Path):
        self.zip = zipfile.ZipFile(path)
        self.names = set(self.zip.namelist())
        self.version = re.search(r"vllm-([\d.]+)", Path(path).name)[1]

    def module(self, name: str) -> tuple[ast.Module, bool]:
        """Its tree, and whether it is a package."""
        path = name.replace(".", "/")
        package = f"{path}/__init__.py" in self.names
        return ast.parse(self.zip.read(f"{path}/__init__.py" if package else f"{path}.py")), package

    def find(self, module: str, name: str) -> tuple[str, ast.AST]:
        """The module that defines what `from module import name` gives, and the definition."""
        tree, package = self.module(module)
        parent = module if package else module.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
                return module, node
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "MODULE_ATTRS":
                path = ast.literal_eval(node.value).get(name)  # vllm's own names are loaded when they are asked for
                if path:
                    return self.find(parent + path.partition(":")[0], name)
            if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
                return self.find(f"{parent}.{node.module}" if node.level else node.module, name)
        raise LookupError(f"{module} has no {name}")

    def parameters(self, path: str) -> list[str]:
        """Names, less `self` or `cls`: "name=" may be left out, what follows "*" must be named; a class's fields."""
        module, _, name = path.partition(":")
        where, node = self.find(module, name.partition(".")[0])
        for part in name.split(".")[1:]:
            (node,) = (child for child in node.body if getattr(child, "name", "") == part)
        if isinstance(node, ast.ClassDef):
            return self.fields(where, node)
        bound = node.args.args[0].arg in ("self", "cls") if node.args.args else False
        plain = node.args.args[bound:]
        needed = len(plain) - len(node.args.defaults)
        parameters = [_parameter(one.arg, i >= needed) for i, one in enumerate(plain)]
        named = [_parameter(one.arg, default is not None)
                 for one, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
        return [*parameters, "*", *named] if named else parameters

    def fields(self, module: str, node: ast.ClassDef) -> list[str]:
        """Of a dataclass or a struct, its bases' first."""
        bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id.endswith("EngineArgs")]
        inherited = [name for base in bases for name in self.fields(*self.find(module, base))]
        return inherited + [_parameter(child.target.id, child.value is not None)
                            for child in node.body if isinstance(child, ast.AnnAssign)]

    def members(self, path: str) -> list[str]:
        """What its instances have: fields, members of an enumeration, and what __init__ gives to self."""
        _, node = self.find(*path.split(":"))
        initializers = [child for child in node.body if getattr(child, "name", "") == "__init__"]
        given = [target.attr for child in initializers for target in ast.walk(child)
                 if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)]
        return given + [target.id for child in node.body if isinstance(child, ast.Assign | ast.AnnAssign)
                        for target in ast.walk(child) if isinstance(target, ast.Name) and
                        isinstance(target.ctx, ast.Store)]

    def facts(self) -> dict:
        environment = self.zip.read("vllm/envs.py").decode()
        config = self.zip.read("vllm/config/model.py").decode()
        engine = self.zip.read("vllm/v1/engine/__init__.py").decode()
        return {
            "version": self.version,
            "parameters": {path: self.parameters(path) for path in CALLED},
            "members": {path: self.members(path) for path in READ},
            "environment": [name for name in ENVIRONMENT if f'"{name}"' in environment],
            "logprobs_mode": _literals(re.search(r"LogprobsMode = Literal\[(.*?)\]", config, re.DOTALL)[1]),
            "finish_reasons": _literals(re.search(r"FINISH_REASON_STRINGS = \((.*?)\)", engine)[1]),
        }


def _parameter(name: str, optional: bool) -> str:
    return f"{name}=" if optional else name


def _literals(text: str) -> list[str]:
    return re.findall(r'"([^"]+)"', text)


def written(facts: dict) -> str:
    """As JSON, a line for each callable or class."""
    rows = []
    for name, value in facts.items():
        if name in ("parameters", "members"):
            inner = ",\n".join(f"  {json.dumps(path)}: {json.dumps(names)}" for path, names in value.items())
            rows.append(f' "{name}": {{\n{inner}\n }}')
        else:
            rows.append(f' "{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    FACTS.write_text(written(Wheel(sys.argv[1]).facts()))
