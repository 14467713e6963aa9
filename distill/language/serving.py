"""Whether vLLM should serve a student's folder: asked of the folder and of what vLLM says that it knows, without vLLM.

Nothing is started: what is compared is the architecture with the names in vLLM's registry, and the folder's tokenizer,
number format, tied weights and chat template with what vLLM reads of them. A model whose attention heads have a size
that a device's kernels lack, or that needs more memory than there is, fails there all the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from distill.core.errors import first_line
from distill.core.reading import read_json

VERSION = "0.33.0"
"""Of vLLM, whose names these are: `vllm/model_executor/models/registry.py` in its wheel on PyPI, November 2026."""
_OWN = """
    AXK1ForCausalLM AfmoeForCausalLM AliceAIForCausalLM ApertusForCausalLM BailingMoeForCausalLM
    BailingMoeV2ForCausalLM BailingMoeV2_5ForCausalLM BailingMoeV3ForCausalLM BeamForCausalLM BloomForCausalLM
    ChatGLMForConditionalGeneration ChatGLMModel Cohere2ForCausalLM Cohere2MoeForCausalLM CohereForCausalLM
    DbrxForCausalLM DeciLMForCausalLM DeepseekForCausalLM DeepseekV2ForCausalLM DeepseekV32ForCausalLM
    DeepseekV3ForCausalLM DeepseekV4ForCausalLM DomynEdgeForCausalLM DoryForCausalLM Ernie4_5ForCausalLM
    Ernie4_5_MoeForCausalLM Exaone4ForCausalLM ExaoneForCausalLM ExaoneMoEForCausalLM ExaoneMoeForCausalLM
    FalconForCausalLM FalconH1ForCausalLM FalconMambaForCausalLM FlintForCausalLM GPT2LMHeadModel GPTJForCausalLM
    Gemma2ForCausalLM Gemma3ForCausalLM Gemma3nForCausalLM Gemma4ForCausalLM GemmaForCausalLM Glm4ForCausalLM
    Glm4MoeForCausalLM Glm4MoeLiteForCausalLM Glm5NextForCausalLM GlmMoeDsaForCausalLM GptOssForCausalLM
    GraniteForCausalLM GraniteMoeForCausalLM GraniteMoeHybridForCausalLM GraniteMoeSWAForCausalLM
    GraniteMoeSharedForCausalLM GraniteSWAForCausalLM HCXVisionV2ForCausalLM HYV3ForCausalLM HYV4ForCausalLM
    HrmTextForCausalLM HyperCLOVAXForCausalLM IQuestCoderForCausalLM IQuestLoopCoderForCausalLM InklingForCausalLM
    InklingForConditionalGeneration InternLM2ForCausalLM InternLM3ForCausalLM JambaForCausalLM K2HorizonForCausalLM
    KimiLinearForCausalLM LLaMAForCausalLM LagunaForCausalLM Lfm2ForCausalLM Lfm2MoeForCausalLM Llama4ForCausalLM
    LlamaForCausalLM LongcatFlashForCausalLM LongcatFlashNgramForCausalLM Mamba2ForCausalLM MambaForCausalLM
    MiMoForCausalLM MiMoV2FlashForCausalLM MiMoV2ForCausalLM MiniCPM3ForCausalLM MiniCPMForCausalLM
    MiniMaxM2ForCausalLM MiniMaxM3SparseForCausalLM Ministral3ForCausalLM MistralForCausalLM
    MistralLarge3ForCausalLM MixtralForCausalLM MuseGlimmerForCausalLM NemotronForCausalLM NemotronHForCausalLM
    NemotronHPuzzleForCausalLM OPTForCausalLM OlmoHybridForCausalLM OlmoeForCausalLM OrionForCausalLM
    PanguEmbeddedForCausalLM PanguProMoEV2ForCausalLM PanguUltraMoEForCausalLM Param2MoEForCausalLM Phi3ForCausalLM
    PhiMoEForCausalLM Plamo3ForCausalLM Qwen2ForCausalLM Qwen2MoeForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM
    Qwen3NextForCausalLM Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM Qwen4ExpForCausalLM Rnj1ForCausalLM
    SarvamMLAForCausalLM SarvamMoEForCausalLM SolarForCausalLM StableLmForCausalLM Step1ForCausalLM
    Step3TextForCausalLM Step3p5ForCausalLM Step5ForCausalLM TeleChat2ForCausalLM TeleChat3ForCausalLM
    TeleFLMForCausalLM Zamba2ForCausalLM
"""
OWN = frozenset(_OWN.split())
"""Architectures that write texts and that vLLM has an implementation of."""
_THROUGH_TRANSFORMERS = """
    ArceeForCausalLM CwmForCausalLM FlexOlmoForCausalLM GPTBigCodeForCausalLM GPTNeoXForCausalLM GlmForCausalLM
    HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM Jais2ForCausalLM Kolibri1ForCausalLM MellumForCausalLM
    NanbeigeForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoForCausalLM PhiForCausalLM SeedOssForCausalLM
    SmolLM3ForCausalLM Starcoder2ForCausalLM VaultGemmaForCausalLM
"""
THROUGH_TRANSFORMERS = frozenset(_THROUGH_TRANSFORMERS.split())
"""Those that it names as served by the classes of transformers."""
FORMATS = ("float32", "bfloat16", "float16")
"""Number formats of weights that vLLM reads; it computes float32 in half the bits unless it is started with --dtype."""
NO_HALF = ("gemma2", "gemma3", "gemma3_text", "glm4")
"""Model types that it refuses in float16."""


def servable(folder: Path) -> dict[str, Any]:
    """What speaks for and against vLLM's serving a folder that `save_pretrained` wrote.

    Returns:
      `known`: `own` (vLLM has the architecture), `transformers` (it names it as served by transformers' own class),
      `perhaps` (a class of transformers that says it can be) or `no`; `architecture`; `registry`, the version of vLLM
      that was asked; `problems`, a sentence for each thing in the folder that would stop vLLM or change what it serves.
    """
    config = _json(folder / "config.json")
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, Sequence) and not isinstance(names, str) and names else ""
    problems = [] if name else ["config.json names no architecture"]
    problems += [*_formats(config), *_weights(folder, name), *_tokens(folder, config)]
    return {"known": _known(name), "architecture": name, "registry": VERSION, "problems": problems}


def sentence(found: Mapping[str, Any]) -> str:
    """What `servable` found, for the card."""
    name, version = found["architecture"] or "the model", found["registry"]
    told = {
        "own": f"vLLM {version} has {name}",
        "transformers": f"vLLM {version} serves {name} with transformers' own class",
        "perhaps": f"vLLM {version} does not name {name}; transformers' class says that it can be served",
        "no": f"vLLM {version} does not know {name}",
    }[found["known"]]
    said = "; ".join(found["problems"]) or "its tokenizer, number format, tied weights and chat template can be read"
    return f"{told}; {said} (compared, not started)"


def _known(name: str) -> str:
    if name in OWN:
        return "own"
    if name in THROUGH_TRANSFORMERS:
        return "transformers"
    says = getattr(getattr(transformers, name, None), "is_backend_compatible", None) if name else None
    return "perhaps" if says is not None and says() else "no"


def _formats(config: Mapping[str, Any]) -> list[str]:
    text = config.get("text_config")
    inner = text.get("dtype") if isinstance(text, Mapping) else None
    kind = config.get("dtype") or config.get("torch_dtype") or inner
    if kind not in FORMATS:
        return [f"the weights' number format is {kind}"]
    if kind == "float16" and config.get("model_type") in NO_HALF:
        return [f"{config['model_type']} is refused in float16"]
    return []


def _weights(folder: Path, name: str) -> list[str]:
    """Whether the output layer is there, and is the embeddings where the config ties the two."""
    files, place = sorted(folder.glob("*.safetensors")), {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                place |= dict.fromkeys(opened.keys(), file)
        except (OSError, SafetensorError) as error:
            return [f"{file.name} cannot be read ({first_line(error)})"]
    if not files:
        return ["there are no weights in safetensors"]
    try:
        tied = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config().tie_word_embeddings
    except Exception as error:  # damaged files raise whatever their readers do
        return [f"config.json cannot be read ({first_line(error)})"]
    pairs: Any = getattr(getattr(transformers, name, None), "_tied_weights_keys", None)
    for output, embeddings in pairs.items() if isinstance(pairs, Mapping) else ():
        if output not in place and embeddings in place and not tied:
            return [f"{output} is missing, and the config does not tie it to {embeddings}"]
        if tied and output in place and embeddings in place:
            both = [_tensor(place[key], key) for key in (output, embeddings)]
            if not torch.equal(*both):
                return [f"the config ties {output} to {embeddings}, and they are stored as different weights"]
    return []


def _tensor(file: Path, name: str) -> Tensor:
    with safe_open(file, "pt") as opened:
        return opened.get_tensor(name)


def _tokens(folder: Path, config: Mapping[str, Any]) -> list[str]:
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files raise whatever their readers do
        return [f"the tokenizer cannot be loaded ({first_line(error)})"]
    found: list[str] = []
    text = config.get("text_config")
    size = config.get("vocab_size") or (text.get("vocab_size") if isinstance(text, Mapping) else None)
    if size is not None and len(tokenizer) > size:
        found.append(f"the tokenizer has {len(tokenizer)} tokens, the model {size}")
    if not tokenizer.chat_template:
        return [*found, "there is no chat template: /v1/completions alone"]
    try:
        asked = [{"role": "user", "content": "a"}]
        tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # a template may do anything
        found.append(f"the chat template fails ({first_line(error)})")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError):
        return {}
