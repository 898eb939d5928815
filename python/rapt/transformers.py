"""rapt in the transformers library: models run on it with attn_implementation="rapt".

    rapt.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="rapt")
"""

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from .torch import attention


def _forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_,
) -> tuple[torch.Tensor, None]:
    """query [batch, heads, seq_q, d_k], key and value with kv_heads -> [batch, seq_q, heads, d_v]."""
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    # The mask, where there is one, says everything. Where there is none, a prompt is causal from its first
    # token on, and one new token attends the whole cache.
    is_causal = query.shape[2] > 1 and attention_mask is None and is_causal
    out = attention(
        query,
        key,
        value,
        attention_mask,
        dropout,
        is_causal,
        scale=scaling,
        enable_gqa=True,
        bias=position_bias,
        softcap=softcap or 0.0,
        sinks=s_aux,
    )
    return out.transpose(1, 2).contiguous(), None


def register() -> None:
    """Makes "rapt" a name for attn_implementation, for inference and for training."""
    AttentionInterface.register("rapt", _forward)
    AttentionMaskInterface.register("rapt", sdpa_mask)
