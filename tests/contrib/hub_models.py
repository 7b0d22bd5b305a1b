"""The models of the hub that `peft`'s tests load, as tiny random ones of the same architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000}
LLAMA = {**SIZES, "hidden_size": 16, "intermediate_size": 64}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 1000, "n_positions": 64}
BERT = {**SIZES, "hidden_size": 32, "intermediate_size": 37, "max_position_embeddings": 64}
DEBERTA = {**BERT, "relative_attention": True, "pos_att_type": "p2c|c2p"}
ENCODER_DECODER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 4,
    "decoder_ffn_dim": 4,
    "vocab_size": 1000,
    "max_position_embeddings": 64,
}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "peft-internal-testing/tiny-random-OPTForCausalLM": (
        "OPTForCausalLM",
        "OPTConfig",
        {**SIZES, "hidden_size": 16, "ffn_dim": 24, "word_embed_proj_dim": 16},
    ),
    # Twelve layers, as the tests count them; quantisation takes blocks of 64.
    "peft-internal-testing/opt-125m": (
        "OPTForCausalLM",
        "OPTConfig",
        {
            **SIZES,
            "num_hidden_layers": 12,
            "hidden_size": 64,
            "ffn_dim": 64,
            "word_embed_proj_dim": 64,
        },
    ),
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": (
        "GPTJForCausalLM",
        "GPTJConfig",
        {**GPT, "rotary_dim": 4},
    ),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {**LLAMA, "num_key_value_heads": 4},
    ),
    "peft-internal-testing/tiny-dummy-qwen2": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**LLAMA, "num_key_value_heads": 2},
    ),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**LLAMA, "num_key_value_heads": 2, "head_dim": 8},
    ),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": (
        "BartForConditionalGeneration",
        "BartConfig",
        ENCODER_DECODER,
    ),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 37,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 1000,
            "decoder_start_token_id": 0,
        },
    ),
    "peft-internal-testing/tiny-random-BertModel": ("BertModel", "BertConfig", BERT),
    "peft-internal-testing/tiny-random-RobertaModel": ("RobertaModel", "RobertaConfig", BERT),
    "peft-internal-testing/tiny-random-DebertaModel": ("DebertaModel", "DebertaConfig", DEBERTA),
    "peft-internal-testing/tiny-random-DebertaV2Model": (
        "DebertaV2Model",
        "DebertaV2Config",
        DEBERTA,
    ),
    "peft-internal-testing/tiny-random-BertForSequenceClassification": (
        "BertForSequenceClassification",
        "BertConfig",
        BERT,
    ),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": (
        "RobertaForSequenceClassification",
        "RobertaConfig",
        BERT,
    ),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": (
        "LlamaForSequenceClassification",
        "LlamaConfig",
        {**LLAMA, "num_key_value_heads": 4, "pad_token_id": 0},
    ),
}
"""By the hub's name: the model's class, its configuration's and the configuration."""


def write(folder: Path) -> None:
    """Write each model where `transformers` finds it in place of the hub's, relative to here."""
    for name, (model, config, settings) in MODELS.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            # A usual start gives logits so small that adapters would not change them.
            start = {"initializer_factor": 2.0} if config == "T5Config" else {}
            start = start or {
                "init_std" if config in ("OPTConfig", "BartConfig") else "initializer_range": 0.2
            }
            made = getattr(transformers, config)(**settings, **start)
            getattr(transformers, model)(made).save_pretrained(folder / name)
