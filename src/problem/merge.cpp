// The checks of merging.
#include "problem/arrays.hpp"
#include "problem/check.hpp"

namespace rapt::problem {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

// Anything that has one number, or one row, for each query of each head.
template <class Rows>
void agree_with_out(const std::string& name, const Rows& rows, const AnyOut& out) {
  agree_batch("out", out, name.c_str(), rows);
  agree(Head::name, "out", out.extent<Head>(), name.c_str(), rows.template extent<Head>());
  agree(Query::name, "out", out.extent<Query>(), name.c_str(), rows.template extent<Query>());
}

}  // namespace

tiles::MergeProblem check_merge(std::span<const AttentionPart> parts, const AnyOut& out,
                                const LseView& lse) {
  plain_type("out", out.type());
  check_output("out", out, tiles::bytes_of(out.type()));
  within(DepthV::name, "out", out.extent<DepthV>(), 1, kMaxDepth);
  tiles::MergeProblem p;
  p.batch = flatten_batch(out);
  p.heads = out.extent<Head>();
  p.seq_q = out.extent<Query>();
  p.d_v = out.extent<DepthV>();
  p.out = stored(out);
  if (lse) {
    check_output("lse", lse);
    agree_with_out("lse", lse, out);
    p.lse = array_of(lse);
  }
  p.parts.reserve(parts.size());
  for (const AttentionPart& part : parts) {
    const std::string number = "parts[" + std::to_string(p.parts.size()) + "]";
    const std::string out_name = number + ".out", lse_name = number + ".lse";
    plain_type(out_name.c_str(), part.out.type());
    check_memory(out_name.c_str(), part.out, tiles::bytes_of(part.out.type()));
    check_memory(lse_name.c_str(), part.lse);
    agree_with_out(out_name, part.out, out);
    agree_with_out(lse_name, part.lse, out);
    agree(DepthV::name, "out", p.d_v, out_name.c_str(), part.out.extent<DepthV>());
    p.parts.push_back({stored(part.out), array_of(part.lse)});
  }
  return p;
}

}  // namespace rapt::problem
