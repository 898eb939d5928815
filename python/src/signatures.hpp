// What Python is told about arguments: the part of the signatures that several functions share, and
// the documentation.
#pragma once

#define RAPT_OPTIONS "causal: bool = False, " RAPT_LAYER_OPTIONS
#define RAPT_LAYER_OPTIONS                                                                    \
  "q_offset: int | Array | None = None, window: tuple[int, int] = (-1, -1), mask: Array | "   \
  "None = None, bias: Array | None = None, softcap: float = 0.0, alibi_slopes: Array | None " \
  "= None, sinks: Array | None = None, scale: float | None = None, kv_lengths: int | Array "  \
  "| None = None, block_table: Array | None = None, chunk: int = 0, prefix: int = 0, "        \
  "q_segments: Array | None = None, kv_segments: Array | None = None, tree: Array | None = "  \
  "None, k_scales: Array | None = None, v_scales: Array | None = None, dropout_p: float = "   \
  "0.0, dropout_seed: int = 0, dropout_offset: int = 0, round_weights: bool | None = None"
#define RAPT_COMMON "layout: str = 'bhsd', threads: int | None = None"

namespace rapt::python {

inline constexpr const char* attention_text =
    R"(softmax(scale q k^T, masked) v, in one pass over the keys.

q [batch, heads, seq_q, d_k], k [batch, kv_heads, seq_kv, d_k], v [batch, kv_heads, seq_kv, d_v];
layout="bshd": [batch, seq, heads, depth]. No batch axis, or up to four, will do as well. float32,
float16 or bfloat16, each its own; k and v also int8 with scales or uint8 (4-bit groups), as
quantize_kv() makes them. Computed in float32. heads is a multiple of kv_heads.

Arrays are those of NumPy, PyTorch, JAX, or any other with DLPack or the buffer protocol, on the CPU,
with any strides, and are read in place. Lengths and offsets are int32 (int64 is converted); biases,
slopes and sinks float32 (float64, float16 and bfloat16 are converted).

causal        key j is attended by query i when j <= i + q_offset
q_offset      position of query 0: int, or [batch]; default: the last query sees the last key
window        (left, right): x - left <= j <= x + right for the query at position x; -1: no end
mask          bool, true = attend, broadcast to [batch, heads, seq_q, seq_kv]
bias          added to the scores, broadcast likewise; -inf: not attended
softcap       > 0: scores become softcap * tanh(score / softcap)
alibi_slopes  [heads]: slope * (j - x) is added
sinks         [heads]: one more score of each row, without a value
scale         default 1 / sqrt(d_k)
kv_lengths    int, or [batch]: keys from there on do not exist
block_table   [batch, pages]: key n is key n % page_size of page block_table[b, n // page_size];
              k and v are pools [pages, kv_heads, page_size, depth] then. Needs kv_lengths
chunk         > 0: query and key are in the same chunk of so many positions
prefix        keys before it are attended whatever causal, window and chunk say
q_segments, kv_segments  [batch, seq_q], [batch, seq_kv]: the same number, the same document
tree          bool [batch, seq_q, n]: which of the last n keys (drafts) each query attends
k_scales, v_scales  [batch, kv_heads, seq_kv]: what an int8 key is multiplied with
dropout_p     for training: each weight is dropped with this probability, and the others divided by
              1 - dropout_p. Which, is a function of dropout_seed (64 bits), dropout_offset (32
              bits: of the call) and the pair alone. lse is of all weights
round_weights where q, k, v and out (and grad_out) are all bfloat16, whether the weights (and the gradients
              of scores) are rounded to it for their products: faster where the CPU multiplies
              bfloat16. None: there
return_lse    also return log(sum(exp(scores))), float32 [batch, heads, seq_q]
out           array to write to, and to return; as q in shape, but for its depth d_v
threads       at most so many; default: all. The result has the same bits

All masks together: a pair is attended when each of them attends it. A row that attends nothing is 0
(lse -inf). Returns out [batch, heads, seq_q, d_v] in q's library, layout and type, or (out, lse).
Raises ValueError, naming the axis or option and both values, or TypeError. Gradients:
attention_backward(), and rapt.torch and rapt.jax, which call it. Thread-safe, and other threads of
Python run meanwhile.)";

inline constexpr const char* attention_backward_text =
    R"(The gradients of attention(): (grad_q, grad_k, grad_v), from those of out and lse.

out, lse    what attention(..., return_lse=True) gave for the same arguments; for packed sequences,
            what attention_varlen() gave for the same cu_seqlens_q, cu_seqlens_kv
grad_out    the gradient by out, as it in shape; grad_lse that by lse, default 0
return_grad_bias, return_grad_alibi_slopes, return_grad_sinks
            the tuple ends with these gradients too, in this order, float32

All else as in attention(). Each gradient has the shape of what it is of: what that was broadcast on
is summed over. grad_q, grad_k and grad_v have the types of q, k and v, which are float32, float16
or bfloat16; a paged cache has no gradients. Scores are computed again from lse, so that nothing of
size seq_q x seq_kv is stored.)";

inline constexpr const char* attention_varlen_text =
    R"(attention() of sequences of unequal length, packed.

Sequence b is [cu_seqlens_q[b], cu_seqlens_q[b + 1]) along the positions of q and out, and
[cu_seqlens_kv[b], cu_seqlens_kv[b + 1]) along those of k and v, which have no batch axis then:
q [total_q, heads, d_k] (layout="bhsd": [heads, total_q, d_k]). None: not packed, one batch axis.
All else as in attention(); lse is [heads, total_q].)";

inline constexpr const char* salience_map_text =
    R"(The weights that attention() gives to each key, float32 [batch, heads, seq_q, seq_kv].

For looking and learning: computed by the reference, in double precision, one row after the other.
activation, where given, replaces softmax: it gets the scores of one row's attended keys (a NumPy
array of float64) and returns as many weights.)";

inline constexpr const char* explain_text =
    R"(How attention() would compute this, without running it: print it.)";

inline constexpr const char* explain_backward_text =
    R"(How attention_backward() would compute this, without running it: print it.)";

inline constexpr const char* explanation_text =
    R"(How a problem is computed. str() says it in words.)";

inline constexpr const char* gemm_text = R"(activation(alpha a b + beta out + bias), float32.

a [batch, m, k] float32, bfloat16 or float16, b [batch, k, n] of these, or int8 with b_scales [n];
any strides (transpose freely), up to four batch axes, broadcast. bias [n]; activation: none, relu or
gelu (erf). Returns [batch, m, n]: out, where given, which is read where beta is not 0.)";

inline constexpr const char* merge_text =
    R"(Attention over some keys and attention over others become attention over all of them.

parts: (out, lse) of each, as attention(..., return_lse=True) returns them. Returns (out, lse).)";

inline constexpr const char* append_kv_text =
    R"(Writes new keys and values into a KV cache, behind those that are there.

k_new, v_new [batch, kv_heads, seq_new, depth]; k_cache, v_cache [batch, kv_heads, capacity, depth]
of any storage type, written in place; kv_lengths: how many keys each batch element has already, an
int or [batch].
cu_seqlens_new  the new keys are packed: those of sequence b are [cu_seqlens_new[b],
                cu_seqlens_new[b + 1]), and k_new, v_new have no batch axis
block_table     [batch, pages]: the caches are pools [pages, kv_heads, page_size, depth]
k_scales, v_scales  float32 [batch, kv_heads, capacity], written where a cache is int8
rope            the arguments of rope() that say how to rotate the new keys, a dict
positions       [batch, seq_new]: of the new keys; default: kv_lengths + 0, 1, 2, ...)";

inline constexpr const char* quantize_kv_text = R"(Keys or values in fewer bits: (stored, scales).

x [batch, heads, positions, depth]. type="int8": stored is int8, scales float32 [batch, heads,
positions], or [batch, heads, 1] with scale_per="head". type="int4": stored is uint8 [batch, heads,
positions, depth / 32 * 18], groups of 32 numbers in 4 bits with a float16 scale each; scales is
None. attention() and append_kv() take both.)";

inline constexpr const char* dequantize_kv_text =
    R"(What quantize_kv() stored, as float32 (or in out's type).)";

inline constexpr const char* rope_text =
    R"(Rotary position embedding of x [batch, heads, positions, depth], in x's type.

The first dims numbers (default: all) of each row turn, in pairs (interleaved: 2i and 2i + 1; half: i
and i + dims / 2), by position * position_scale * base^(-2i / dims) / frequency_factors[i], and are
multiplied by magnitude. Position of row n: positions[batch, n], or first_positions[batch] + n.)";

inline constexpr const char* layer_text =
    R"(The multi-head attention layer of "Attention Is All You Need".

qkv [3, embedding, d_model], w_q and w_k [heads, d_model, d_k], w_v [heads, d_model, d_v],
output [heads, d_v, embedding]; without qkv, heads project the tokens themselves, and d_model is the
embedding. Biases b_q, b_k [heads, d_k], b_v [heads, d_v], b_output [embedding]. Parameters are copied
and kept in float64, and computed with in float32.)";

inline constexpr const char* layer_call_text =
    R"(q_tokens [..., seq_q, embedding], k_tokens and v_tokens [..., seq_kv, embedding].

Returns [..., seq_q, embedding], float32, in q_tokens' library. Options as in attention(), with this
layer's heads; tokens in float64, float16 or bfloat16 are converted. Thread-safe.)";

}  // namespace rapt::python
