// From views and options to a checked problem, or an Error that names the axis and both values.
// Nothing behind this room checks an input again.
#pragma once

#include <array>
#include <vector>

#include "rapt/attention.hpp"
#include "rapt/backward.hpp"
#include "rapt/cache.hpp"
#include "rapt/gemm.hpp"
#include "rapt/layer.hpp"
#include "rapt/merge.hpp"
#include "rapt/quantize.hpp"
#include "rapt/rope.hpp"
#include "tiles/append.hpp"
#include "tiles/attention.hpp"
#include "tiles/backward.hpp"
#include "tiles/gemm.hpp"
#include "tiles/merge.hpp"
#include "tiles/quantize.hpp"
#include "tiles/rope.hpp"

namespace rapt::problem {

tiles::AttentionProblem check_attention(const AnyQ& q, const AnyK& k, const AnyV& v,
                                        const AnyOut& out, const AttentionOptions& options);

tiles::BackwardProblem check_backward(const AnyQ& q, const AnyK& k, const AnyV& v,
                                      const AnyOutIn& out, const LseIn& lse,
                                      const AnyOutIn& grad_out, const AnyGradQ& grad_q,
                                      const AnyGradK& grad_k, const AnyGradV& grad_v,
                                      const AttentionOptions& options,
                                      const BackwardOptions& backward);

// Salience has no v; its rows are checked against q and k.
void check_salience(const AnyQ& q, const AnyK& k,
                    const View<float, axis::Head, axis::Query, axis::Key>& salience,
                    const AttentionOptions& options);

tiles::GemmProblem check_gemm(const AnyView<const std::byte, axis::Row, axis::Inner>& a,
                              const AnyView<const std::byte, axis::Inner, axis::Column>& b,
                              const View<float, axis::Row, axis::Column>& c,
                              const GemmOptions& options);

// The products of gemm_backward(). A gradient that is not wanted has no data; one that is summed
// over a batch axis does not move along it.
struct GemmBackwardProblem {
  tiles::Batch batch;  // of grad_c
  tiles::Index m = 0, n = 0, k = 0;
  tiles::Array<const float> a, b, grad_c;         // [m, k], [k, n], [m, n]
  tiles::Array<float> grad_a, grad_b, grad_bias;  // [m, k], [k, n], [1, n]
};
GemmBackwardProblem check_gemm_backward(const View<const float, axis::Row, axis::Inner>& a,
                                        const View<const float, axis::Inner, axis::Column>& b,
                                        const View<const float, axis::Row, axis::Column>& grad_c,
                                        const View<float, axis::Row, axis::Inner>& grad_a,
                                        const View<float, axis::Inner, axis::Column>& grad_b,
                                        const GemmBackwardOptions& options);

tiles::AppendProblem check_append(const AnyK& k_new, const AnyV& v_new, const AnyKCache& k_cache,
                                  const AnyVCache& v_cache, const AppendOptions& options);

tiles::RopeProblem check_rope(const AnyRows& x, const AnyRowsOut& out, const Rope& rope,
                              const RopeOptions& options);
// The angles of a rotation of rows of this depth.
tiles::Rope checked_rope(const Rope& rope, std::int64_t depth);

tiles::ConvertProblem check_quantize(const AnyRows& from, const AnyRowsOut& to,
                                     const View<float, axis::KvHead, axis::Key>& scales);
tiles::ConvertProblem check_dequantize(const AnyRows& from, const ScalesView& scales,
                                       const AnyRowsOut& to);
tiles::ConvertProblem check_convert(const AnyRows& from, const AnyRowsOut& to);

tiles::MergeProblem check_merge(std::span<const AttentionPart> parts, const AnyOut& out,
                                const LseView& lse);

void check_layer(const LayerShape& shape);
// What a token becomes before it is split into heads.
std::int64_t layer_width(const LayerShape& shape);

// The parameters of a layer of a checked shape, in the order of LayerParameters.
struct LayerParameter {
  const char* name;
  std::vector<double> LayerParameters::* values;
  bool optional;
  std::vector<std::int64_t> extents;
  std::int64_t elements() const;
};
std::array<LayerParameter, 9> layer_parameters(const LayerShape& shape);
void check_layer(const LayerShape& shape, const LayerParameters& parameters);

void check_layer_forward(const LayerShape& shape, const TokensView& q_tokens,
                         const KvTokensView& k_tokens, const KvTokensView& v_tokens,
                         const OutTokensView& result);
void check_layer_backward(const LayerShape& shape, const TokensView& q_tokens,
                          const KvTokensView& k_tokens, const KvTokensView& v_tokens,
                          const LayerActivations& kept, const TokensView& grad_result,
                          const LayerGradients& gradients);

}  // namespace rapt::problem
