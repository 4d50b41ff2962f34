"""The processes that train together: how they are started, which one this is, what they tell each other.

A rank is one process. `al-sft --launch N` starts N of them here; torchrun, the deepspeed launcher and Slurm's srun
start them anywhere. All go through the same body; the first of a machine reads the data, rank 0 alone writes.
"""

import json
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from typing import Any, NoReturn, TypeVar

import click

from alignlib import waits

T = TypeVar("T")

OURS = "ALIGN_LAUNCHER"  # the process number of `launch`, to which its ranks leave the last word
SPOOL = "ALIGN_STDIN"  # where `launch` has put standard input
TERMINATED = 128 + signal.SIGTERM
PATIENCE = timedelta(hours=2)  # of a rank that waits for another, which may be saving a large model
READING = timedelta(days=14)  # the same of one that reads all of the data


def rank() -> int:
    return int(os.environ["RANK"]) if size() > 1 else 0


def size() -> int:
    """How many processes train together; 1 for a command started plainly."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def local() -> int:
    """Which of its machine's processes this is, and so which device is its own."""
    return int(os.environ.get("LOCAL_RANK") or 0) if size() > 1 else 0


def first() -> bool:
    """Whether this is the one process that writes and speaks."""
    return rank() == 0


def reader() -> int:
    """The first rank on this one's machine, which reads the data for those there."""
    hosts = gather(socket.gethostname())
    return hosts.index(hosts[rank()])


# -- starting ------------------------------------------------------------------------------------------------


def join(files: Sequence[str], count: int | None) -> None:
    """Find out who we are; with `count`, start that many processes of this very command instead and exit as they did.

    Raises UsageError for an outer launcher's ranks that would share one standard input.
    """
    slurm()
    outer = size() > 1 and OURS not in os.environ
    if size() > 1 and "RANK" not in os.environ:
        raise click.UsageError("WORLD_SIZE is set but RANK is not: neither torchrun, deepspeed nor srun")
    if outer and count:
        raise click.UsageError("--launch: another launcher has started this already")
    if outer and (not files or "-" in files):
        raise click.UsageError("several processes cannot share standard input: give a file, or use --launch")
    if OURS not in os.environ and count:
        launch(count, spool=not files or "-" in files)
    if SPOOL in os.environ:  # everyone reads it from the start, as its own standard input
        os.dup2(os.open(os.environ[SPOOL], os.O_RDONLY), 0)
    if not first():  # errors still leave, by `report`
        sys.stdout = sys.stderr = open(os.devnull, "w")


def slurm() -> None:
    """Say in torch's words what srun says of its tasks; a batch script without srun is one process."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if "WORLD_SIZE" in os.environ or tasks == "1":
        return
    job = int(os.environ["SLURM_JOB_ID"]) + int(os.environ.get("SLURM_STEP_ID", 0))
    os.environ |= {"WORLD_SIZE": tasks, "RANK": os.environ["SLURM_PROCID"], "LOCAL_RANK": os.environ["SLURM_LOCALID"]}
    os.environ.setdefault("MASTER_ADDR", first_host(os.environ["SLURM_STEP_NODELIST"]))
    os.environ.setdefault("MASTER_PORT", str(20000 + job % 20000))


def first_host(hosts: str) -> str:
    """The first of Slurm's list of hosts: "gpu[007-009,12],login" -> "gpu007"."""
    start, bracket, rest = re.findall(r"^([^\[,]*)(\[?)(.*)", hosts)[0]
    return start + (re.findall(r"^\d+", rest)[0] if bracket else "")


def launch(count: int, *, spool: bool) -> NoReturn:
    """Run this command in `count` processes here, and exit as they did: the first failure says why."""
    waits.hush()  # the first of them shows what goes on
    import_module("torch.distributed.launcher")  # Ctrl-C in an import ends at once: before there is a folder to leave
    folder = tempfile.mkdtemp(prefix="align-")
    os.environ[OURS] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    try:
        if spool:
            os.environ[SPOOL] = os.path.join(folder, "stdin")
            try:
                with open(os.environ[SPOOL], "wb") as handle:
                    shutil.copyfileobj(sys.stdin.buffer, handle)
            except OSError as error:  # say where
                raise OSError(error.errno, error.strerror, os.environ[SPOOL]) from error
        code = run_all(count, folder)
    finally:
        shutil.rmtree(folder)
    sys.exit(code)


def run_all(count: int, folder: str) -> int:
    """Start the processes by torch's elastic agent, wait for them: the exit code."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # the report is ours
    command = program_name().replace("-", "_")
    how = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=count, run_id="align", rdzv_backend="c10d",
                       rdzv_endpoint="localhost:0", local_addr="localhost", max_restarts=0,
                       logs_specs=DefaultLogsSpecs(log_dir=folder))
    try:
        elastic_launch(how, sys.executable)("-m", "alignlib.cli.start", command, *sys.argv[1:])
    except SignalException as error:  # the ranks have had the signal too, and have ended
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        return verdict(error.failures)
    return 0


def program_name() -> str:
    """al-sft, say, as it stands before an error."""
    return click.get_current_context().info_name or ""


def verdict(failures: Mapping[int, Any]) -> int:
    """Print why the ranks ended, {rank: ProcessFailure}; the exit code. One killed comes before those it took along."""
    ended = (-signal.SIGTERM, TERMINATED)  # how the launcher has ended those that were still there

    def place(item: tuple[int, Any]) -> tuple[bool, bool, float, int]:
        number, failure = item
        at = failure.error_file_data.get("at", failure.timestamp)  # those that it took along may be of the same second
        return failure.exitcode in ended, failure.exitcode > 0, at, number

    number, failure = min(failures.items(), key=place)
    name = program_name()
    if failure.exitcode < 0:
        print(f"{name}: rank {number} was killed by {signal.Signals(-failure.exitcode).name}; all have ended, "
              "--resume goes on from the last checkpoint", file=sys.stderr)
        return 1
    if "message" in failure.error_file_data and failure.error_file != "<N/A>":
        print(failure.error_file_data["message"], file=sys.stderr)
    return int(failure.exitcode)


def leave(code: int) -> NoReturn:
    """Exit. A rank leaves without Python's finalization, in which threads of torch's collectives now and then abort; so
    does a command that has had vLLM, whose libraries then complain of what is left.
    """
    if "WORLD_SIZE" not in os.environ and "vllm" not in sys.modules:  # no rank, not even one alone
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def orphaned() -> bool:
    """Whether our launcher has gone: nobody would know how we end, or keep us from running twice."""
    return OURS in os.environ and os.getppid() != int(os.environ[OURS])


_failed_at = 0.0


def failed() -> None:
    """Note that this rank fails now, before the others fail because it has left: it is the one that tells why."""
    global _failed_at
    _failed_at = _failed_at or time.time()


def report(line: str, code: int) -> None:
    """The one line on why we exit with `code`, to stderr or to the launcher, which prints the first."""
    if code == TERMINATED and OURS in os.environ:  # everybody was asked to end: the first says how far it came
        print(line, file=sys.stderr)
    elif OURS in os.environ and (file := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        with open(file, "w") as handle:
            json.dump({"message": line, "timestamp": int(time.time()), "at": _failed_at or time.time()}, handle)
    else:
        with suppress(OSError):  # on a full disk, where standard error may be too, the exit code says it alone
            print(line if size() == 1 else f"rank {rank()}: {line}", file=sys.__stderr__ or sys.stderr)


# -- talking -------------------------------------------------------------------------------------------------


def connect(device: str, number: int = 0) -> None:
    """Meet the other processes, over gloo on CPUs, over NCCL between GPUs; alone, be a group of one.

    number: of the device, among those of its kind.
    """
    from torch import distributed

    if distributed.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    if size() > 1:
        distributed.init_process_group(backend, timeout=PATIENCE)
    else:
        # DeepSpeed looks for them, and takes LOCAL_RANK for the device's number.
        os.environ |= {"RANK": "0", "LOCAL_RANK": str(number), "WORLD_SIZE": "1"}
        store = distributed.HashStore()  # type: ignore[attr-defined]  # documented, not listed as exported
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)


def share(work: Callable[[], T]) -> T:
    """What `work` gives rank 0, on every rank."""
    if size() == 1:
        return work()
    import torch
    from torch import distributed

    values: list[Any] = [work() if first() else None]
    distributed.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def gather(value: T) -> list[T]:
    """Every rank's value, on every rank."""
    if size() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * size()
    distributed.all_gather_object(values, value)
    return values


def total(figures: dict[str, float]) -> dict[str, float]:
    """The sum over ranks of each figure; all ranks give the same names."""
    if size() == 1:
        return figures
    import torch
    from torch import distributed

    sums = torch.tensor(list(figures.values()), dtype=torch.float64)
    distributed.all_reduce(sums)
    return dict(zip(figures, sums.tolist(), strict=True))


def wait() -> None:
    """Until every rank has come here."""
    gather(None)


def patient_wait() -> Callable[[], None]:
    """A `wait` for one that reads all of the data; every rank makes it while nobody reads yet."""
    if size() == 1:
        return wait
    from torch import distributed

    group = distributed.new_group(backend="gloo", timeout=READING)
    return lambda: distributed.barrier(group)
