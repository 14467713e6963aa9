"""What test_spread.py runs in two processes: models of every family in parts, as they are whole."""

import hashlib
import sys

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM

from distill.core import sharding
from distill.core.errors import DistillError
from distill.core.processes import connected, everybody
from distill.language.generation import generate
from distill.language.spread import spread
from distill.language.student import dense
from tests.distill.language.test_families import EXPERTS, FAMILIES, PAD, SIZES, V, causal, model, tokens

MIXED = "deepseek_v3"


def mixed():
    """A model in bfloat16 whose routers stay in float32, as transformers keeps them."""
    torch.manual_seed(0)
    sizes = {
        **SIZES, **EXPERTS, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
        "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
        "first_k_dense_replace": 1,
    }  # fmt: skip
    config = AutoConfig.for_model(MIXED, vocab_size=V, pad_token_id=PAD, eos_token_id=1, bos_token_id=None, **sizes)
    found = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    assert {p.dtype for p in found.parameters()} == {torch.bfloat16, torch.float32}
    return found


def main() -> None:
    """Says `FOUND` with the family, the greatest share of blocks that one process has, and whether all is equal."""
    torch.set_num_threads(1)
    processes = connected()
    first = processes.is_main_process
    for family in (*FAMILIES, MIXED):
        whole, batch = mixed() if family == MIXED else model(family), {"tokens": tokens()}
        known = dense(whole, causal(V))
        wanted, name = known.label(batch).logits, known.fingerprint()
        there = spread(whole if first else None)
        teacher = dense(there, causal(V))
        blocks = [p for p in there.parameters() if isinstance(p, DTensor)]
        mine = sum(p.to_local().numel() for p in blocks) / sum(p.numel() for p in blocks)
        kinds = [{n: p.dtype for n, p in m.state_dict().items()} for m in (whole, there)]
        equal = [kinds[0] == kinds[1], torch.equal(teacher.label(batch).logits, wanted), teacher.fingerprint() == name]
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
