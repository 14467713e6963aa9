"""What test_spread.py runs in two processes: models of every family in parts, as they are whole."""

import hashlib
import sys

import torch
from torch.distributed.tensor import DTensor

from distill.core import sharding
from distill.core.errors import DistillError
from distill.core.processes import connected, everybody
from distill.language.generation import generate
from distill.language.spread import spread
from distill.language.student import dense
from tests.distill.language.test_families import FAMILIES, PAD, V, causal, model, tokens


def main() -> None:
    """Says `FOUND` with the family, the greatest share of blocks that one process has, and whether all is equal."""
    torch.set_num_threads(1)
    processes = connected()
    first = processes.is_main_process
    for family in FAMILIES:
        whole, batch = model(family), {"tokens": tokens()}
        known = dense(whole, causal(V))
        wanted, name = known.label(batch).logits, known.fingerprint()
        there = spread(whole if first else None)
        teacher = dense(there, causal(V))
        blocks = [p for p in there.parameters() if isinstance(p, DTensor)]
        mine = sum(p.to_local().numel() for p in blocks) / sum(p.numel() for p in blocks)
        equal = [torch.equal(teacher.label(batch).logits, wanted), teacher.fingerprint() == name]
        with sharding.led(there, first) as leads:
            if leads:  # as often as it likes
                for _ in range(3):
                    equal.append(torch.equal(teacher.label(batch).logits, wanted))
                texts = [generate(m, batch["tokens"][:, :4], 4, V, 0, 0.0, end=1, pad=PAD)[0] for m in (whole, there)]
                equal.append(torch.equal(*texts))
        failed = False
        try:
            with sharding.led(there, first) as leads:
                if leads:
                    teacher.label(batch)
                    raise DistillError("no room")
        except DistillError:
            failed = True
        equal += [failed, torch.equal(teacher.label(batch).logits, wanted)]
        equal.append(len(set(everybody(processes, hashlib.sha256(str(wanted).encode()).hexdigest()))) == 1)
        print("FOUND", family, max(everybody(processes, mine)), all(equal), equal)


if __name__ == "__main__":
    main()
    sys.exit(0)
