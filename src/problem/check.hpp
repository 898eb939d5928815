// From views and options to a checked problem, or an Error that names the axis and both values.
// Nothing behind this room checks an input again.
#pragma once

#include "rapt/attention.hpp"
#include "rapt/gemm.hpp"
#include "tiles/attention.hpp"
#include "tiles/gemm.hpp"

namespace rapt::problem {

tiles::AttentionProblem check_attention(const AnyQ& q, const AnyK& k, const AnyV& v,
                                        const AnyOut& out, const AttentionOptions& options);

// Salience has no v; its rows are checked against q and k.
void check_salience(const AnyQ& q, const AnyK& k,
                    const View<float, axis::Head, axis::Query, axis::Key>& salience,
                    const AttentionOptions& options);

tiles::GemmProblem check_gemm(const View<const float, axis::Row, axis::Inner>& a,
                              const AnyView<const std::byte, axis::Inner, axis::Column>& b,
                              const View<float, axis::Row, axis::Column>& c,
                              const GemmOptions& options);

}  // namespace rapt::problem
