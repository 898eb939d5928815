// The backward pass of attention: from the gradient of out those of q, k and v, and of what is
// added to scores. The scores are computed again from lse: no seq_q x seq_kv array.
//
// With p_j = exp(s_j - lse) the weights of a row, and dx the gradient by x:
//   dv[g,j,:]    = sum_(h of g, i) p_j dout[h,i,:]
//   ds_j         = p_j (dout[h,i,:] . v[g,j,:] - dout[h,i,:] . out[h,i,:] + dlse[h,i])
//   dbias[h,i,j] = ds_j
//   dslope[h]    = sum_(i,j) ds_j (j - x)
//   dsink[h]     = sum_i ds of the sink, a key whose value is 0
//   ds_j        *= 1 - tanh(s_j / softcap)^2                     where softcap > 0
//   dq[h,i,:]    = scale sum_j ds_j k[g,j,:]
//   dk[g,j,:]    = scale sum_(h of g, i) ds_j q[h,i,:]
// Source: Dao et al. 2022, appendix B.4. What a query does not attend has no effect, and gives
// nothing: NaN or Inf there never reaches a gradient, and a query that attends no key has gradient
// 0.
#pragma once

#include "rapt/attention.hpp"

namespace rapt {

using AnyOutIn = AnyView<const std::byte, axis::Head, axis::Query, axis::DepthV>;
using LseIn = View<const float, axis::Head, axis::Query>;
using AnyGradQ = AnyView<std::byte, axis::Head, axis::Query, axis::DepthK>;
using AnyGradK = AnyView<std::byte, axis::KvHead, axis::Key, axis::DepthK>;
using AnyGradV = AnyView<std::byte, axis::KvHead, axis::Key, axis::DepthV>;

// Beside the gradient of out: what else is given, and what else is wanted.
struct BackwardOptions {
  LseIn grad_lse{};  // [batch..., heads, seq_q]; default 0

  // Written when given, with the extents of bias, alibi_slopes and sinks: what these are broadcast
  // on is summed over. Elements of the bias that are -inf have gradient 0.
  View<float, axis::Head, axis::Query, axis::Key> grad_bias{};
  View<float, axis::Head> grad_alibi_slopes{}, grad_sinks{};
};

// out and lse are those of attention() with the same q, k, v and options, of which lse and executor
// alone mean something else here: options.lse is not looked at. grad_out has the extents of out,
// and each gradient those of what it is of. Keys from kv_lengths on have gradient 0. Each array has
// a storage type of its own: f32, bf16 or f16; all is computed and summed in f32. Gradients must
// not overlap anything else. Paged caches, int8 and 4-bit groups have no gradients. Throws Error
// before anything is written. Same bits for any number of threads. Safe to call from many threads.
RAPT_API void attention_backward(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOutIn& out,
                                 const LseIn& lse, const AnyOutIn& grad_out, const AnyGradQ& grad_q,
                                 const AnyGradK& grad_k, const AnyGradV& grad_v,
                                 const AttentionOptions& options = {},
                                 const BackwardOptions& backward = {});

}  // namespace rapt
