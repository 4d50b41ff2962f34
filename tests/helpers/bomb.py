"""A pickle that would run code when it is read."""

import pickle
from pathlib import Path


class Bomb:
    """Makes the file `proof` when it is unpickled."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self):
        return Path.touch, (self.proof,)


def plant(file: Path) -> Path:
    """In place of what torch.save wrote; the file that would be there had it been run."""
    import torch

    proof = file.with_name("proof")
    pickle.loads(pickle.dumps(Bomb(proof)))
    assert proof.exists()  # it works
    proof.unlink()
    torch.save({"state": Bomb(proof), "ranks": 0, "step": 1}, file)
    return proof
