"""A tiny random model of each kind of causal language model that `transformers` has."""

from __future__ import annotations

from typing import Any

import torch

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "n_embed": 32,
    "word_embed_proj_dim": 32,
    "embedding_size": 32,
    "emb_dim": 32,
    "dim": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "ffn_hidden_size": 48,
    "n_inner": 48,
    "dff": 48,
    "d_inner": 48,
    "dim_ff": 48,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "decoder_layers": 2,
    "encoder_layers": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "max_seq_len": 128,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 8,
    "qk_head_dim": 24,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "state_size": 8,
    "time_step_rank": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "vocab_size_per_layer_input": 300,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    "attention_hidden_size": 32,
    "rotary_dim": 4,
    "lru_width": 32,
    "sliding_window": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}

# Hybrids need one layer of attention beside the recurrent ones.
FOUR = {"num_hidden_layers": 4}

SPECIAL: dict[str, dict[str, Any]] = {
    "qwen3_5_text": FOUR,
    "qwen3_5_moe_text": FOUR,
    "qwen3_next": FOUR,
    "olmo_hybrid": FOUR,
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "roc_bert": {"pronunciation_vocab_size": 8, "shape_vocab_size": 8},
}
"""What the sizes above do not fit."""

ENCODERS = (
    "bert",
    "bert-generation",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "megatron-bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
)
"""Encoders that are causal where their configuration says ``is_decoder``."""


def tiny_config(kind: str, **changes: Any) -> Any:
    """A tiny configuration of a model type."""
    from transformers import CONFIG_MAPPING

    cls = CONFIG_MAPPING[kind]
    names = set(cls().to_dict())
    chosen = {name: size for name, size in SIZES.items() if name in names}
    if "kv_lora_rank" in names:
        # Latent attention gives every head keys of its own.
        chosen["num_key_value_heads"] = chosen["num_attention_heads"]
    for extra in ("layer_types", "mlp_layer_types", "layers_block_type"):
        if extra in names:
            chosen[extra] = None
    return cls(**{**chosen, **SPECIAL.get(kind, {}), **changes})


def tiny(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A tiny model in float32, whose weights are large enough that its context counts."""
    from transformers import AutoModelForCausalLM

    config = tiny_config(kind, **changes)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > 3_000_000:
        raise ValueError(f"{kind}: {size:,} parameters")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        for value in model.parameters():
            if value.dim() < 2:
                value.data += torch.randn_like(value) * 0.1
            else:
                value.data.normal_(0, 0.2)
    return model
