"""The commands as scripts that start at once: each a process of its own, with the files, folder, environment, umask and
limits of who calls it, but forked from one that has imported torch.

    subprocess.run([str(folder() / "bin" / "al-sft"), ...])
    subprocess.run(["make", "hh-exo", "SCALE=smoke", f"VENV={folder()}"])
"""

import atexit
import functools
import inspect
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Takes callers of the socket that is its standard input. Each sends its standard files and what it was called with; a
# fork waits for another one, the command, and answers with its exit code; a caller that is killed ends its command.
# With "moments" in TESTS_TELL the command watches those of its run (helpers.moments), with "fault" it has that one
# (helpers.planted).
SERVER = """
import json, os, resource, select, signal, socket, sys
import peft, torch, transformers, alignlib.decoding.sampler, alignlib.training.loop
from alignlib.cli import start
import helpers.moments, helpers.planted
transformers.LlamaForCausalLM, transformers.LlamaForSequenceClassification, transformers.AutoTokenizer
listener = socket.socket(fileno=os.dup(0))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
while caller := listener.accept()[0]:
    if os.fork():
        caller.close()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, files, _, _ = socket.recv_fds(caller, 2**20, 3)
    if child := os.fork():
        for file in files:
            os.close(file)
        ended = os.pidfd_open(child)
        if ended not in select.select([caller, ended], [], [])[0]:  # the caller was killed
            os.kill(child, signal.SIGTERM)
        caller.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    caller.close(), listener.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)
    name, arguments, folder, environ, umask, limits = json.loads(data)
    os.chdir(folder), os.umask(umask)
    for kind, limit in limits:
        resource.setrlimit(kind, limit)
    told = json.loads(environ.pop("TESTS_TELL", "{}"))
    os.environ.clear(), os.environ.update(environ)
    sys.argv, code = [name, *arguments], 99  # a command always exits
    if "fault" in told:
        helpers.planted.plant(told["fault"])
    if "moments" in told:
        helpers.moments.watch(**told["moments"])
    try:
        start.run(name.replace("-", "_"))
    except SystemExit as end:
        code = end.code or 0
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)
"""

# -I and -S: nothing of an environment is imported.
SCRIPT = """#!{python} -IS
import json, os, resource, socket, sys
{ask}
code = ask({path!r}, {name!r}, sys.argv[1:], os.getcwd(), dict(os.environ), [0, 1, 2])
sys.exit(code if code >= 0 else 128 - code)
"""


def ask(path, name, arguments, folder, environ, files):
    """The exit code of a command that the server at `path` forks: of one that a signal ended, less than zero."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.connect(path)
    os.umask(umask := os.umask(0))
    limits = [(kind, resource.getrlimit(kind)) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)]
    request = name, arguments, folder, environ, umask, limits
    socket.send_fds(caller, [json.dumps(request).encode()], files)
    return int(caller.recv(16) or 99)


@functools.cache
def environment_then() -> frozenset[tuple[str, str]]:
    """The environment as it was when this was first asked, before any test."""
    return frozenset(os.environ.items())


def python_path(*rooms: str) -> str:
    """Where a process's Python is to look: in these folders of the checkout, then where this one's was told to."""
    own = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return os.pathsep.join([*(str(ROOT / room) for room in rooms), *own])


@functools.cache
def folder(**more: str) -> Path:
    """What a virtual environment is to a Makefile: a folder with `bin`, until this process ends.

    more: of the environment in which the libraries are imported.
    """
    made = Path(tempfile.mkdtemp(prefix="forks-"))
    atexit.register(shutil.rmtree, made)
    path = str(made / "socket")
    environ = {**dict(environment_then()), **more, "DS_ACCELERATOR": "cpu",
               "PYTHONPATH": python_path("lib", "tools", "tests")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(64)
        server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=listener, env=environ)
    atexit.register(server.wait)
    atexit.register(server.kill)
    (made / "bin").mkdir()
    for command in (ROOT / "tools").glob("al_*"):
        name = command.stem.replace("_", "-")
        write(made / "bin" / name,
              SCRIPT.format(python=sys.executable, ask=inspect.getsource(ask), path=path, name=name))
    for name in ("python", "python3"):
        write(made / "bin" / name, f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    return made


def write(path: Path, text: str) -> None:
    path.write_text(text)
    os.chmod(path, 0o755)
