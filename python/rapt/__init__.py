"""rapt: attention for CPUs.

    out = rapt.attention(q, k, v, causal=True)

Arrays are those of NumPy, PyTorch, JAX, or anything on the CPU with DLPack or the buffer protocol;
they are read in place, and results are arrays of the library that q comes from. See also rapt.torch
(a drop-in for scaled_dot_product_attention), rapt.transformers and rapt.jax.
"""

from ._core import (
    ConfigReport,
    Explanation,
    MultiHeadAttention,
    __version__,
    append_kv,
    attention,
    attention_backward,
    attention_varlen,
    config_report,
    config_text,
    dequantize_kv,
    explain,
    explain_backward,
    gemm,
    load_config,
    merge,
    quantize_kv,
    rope,
    salience_map,
    set_target,
    target,
    targets,
)

__all__ = [
    "ConfigReport",
    "Explanation",
    "MultiHeadAttention",
    "__version__",
    "append_kv",
    "attention",
    "attention_backward",
    "attention_varlen",
    "config_report",
    "config_text",
    "dequantize_kv",
    "explain",
    "explain_backward",
    "gemm",
    "load_config",
    "merge",
    "quantize_kv",
    "rope",
    "salience_map",
    "set_target",
    "target",
    "targets",
]
