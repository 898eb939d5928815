// What the Python peers need of rapt, as plain C: rapt's operations and any cblas_sgemm under the
// same stopwatch, the limits of the machine, and the check of a result. Used by bench/peers through
// ctypes; no part of the library, and its names may change at any time.
//
// Functions that can fail return null on success and otherwise a sentence that is valid until the
// next call. A timing function runs once untimed, then until `budget` seconds are over or
// `capacity` runs are done, at least once; it writes the seconds of each run and returns their
// number, or -1 (see rapt_bench_error).
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "attention.hpp"
#include "expected.hpp"
#include "peak.hpp"
#include "rapt/rapt.hpp"
#include "threads.hpp"

namespace {

using rapt::bench::LayerSizes;
using rapt::bench::LayerWeights;
using Clock = std::chrono::steady_clock;

std::string g_error;

struct Stopwatch {
  double budget;
  double* seconds;
  std::int64_t capacity;
};

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <class Run>
std::int64_t time_runs(const Stopwatch& watch, Run run) {
  run();
  std::int64_t runs = 0;
  const Clock::time_point begin = Clock::now();
  do {
    const Clock::time_point start = Clock::now();
    run();
    watch.seconds[runs++] = since(start);
  } while (runs < watch.capacity && since(begin) < watch.budget);
  return runs;
}

// Exceptions end here: the caller is C.
template <class Work>
std::int64_t guarded(Work work) {
  try {
    return work();
  } catch (const std::exception& error) {
    g_error = error.what();
    return -1;
  }
}

// Null where `wrong()` finds nothing wrong.
template <class Wrong>
const char* check(Wrong wrong) {
  const bool found = guarded([&] {
                       g_error = wrong();
                       return std::int64_t{0};
                     }) != 0 ||
                     !g_error.empty();
  return found ? g_error.c_str() : nullptr;
}

// The operands of an attention whose shape says plain types: int8 rows would need scales.
struct Attention {
  rapt::bench::AttentionLayout layout;
  rapt::bench::AttentionArrays arrays;

  Attention(const char* name, void* q, void* k, void* v, void* out)
      : layout(rapt::bench::parse_shape(name)) {
    const rapt::Type type = layout.shape().modifiers.type;
    const rapt::bench::AttentionSizes sizes = layout.shape().attention();
    if (type != rapt::bench::plain_type(type))
      throw std::invalid_argument(std::string(name) + " is not for peers: k and v have scales");
    const auto rows = [&](std::int64_t depth, void* data) {
      return rapt::bench::StoredRows{type, depth, static_cast<std::byte*>(data)};
    };
    arrays = {rows(sizes.d_k, q), rows(sizes.d_k, k), rows(sizes.d_v, v), rows(sizes.d_v, out)};
  }
};

// And those of its backward pass. `result` holds out and the gradients by q, k and v, one after the
// other, all as large as q: every query head has its key head, and d_v is d_k.
struct Backward : Attention {
  rapt::bench::BackwardArrays gradients;

  Backward(const char* name, void* q, void* k, void* v, void* dout, void* result)
      : Attention(name, q, k, v, result) {
    const rapt::bench::AttentionSizes s = layout.shape().attention();
    if (s.kv_heads != s.heads || s.seq_kv != s.seq_q || s.d_v != s.d_k)
      throw std::invalid_argument(std::string(name) +
                                  " is not for peers: gradients differ in size");
    rapt::bench::StoredRows rows = arrays.out;
    const auto next = [&, bytes = layout.q_rows() * rapt::bench::row_bytes(rows.type, s.d_v)] {
      rows.data += bytes;
      return rows;
    };
    gradients.forward = arrays;
    gradients.dq = next();
    gradients.dk = next();
    gradients.dv = next();
    gradients.dout = {rows.type, s.d_v, static_cast<std::byte*>(dout)};
  }
  bool trains() const { return layout.shape().modifiers.pass == rapt::bench::Pass::training; }
};

// Dense operands of a product, in the types that its shape says: int8 columns would need scales.
struct Gemm {
  rapt::bench::Shape shape;
  rapt::bench::GemmSizes sizes;
  rapt::bench::StoredRows a, b;
  float* c;

  Gemm(const char* name, void* a, void* b, float* c)
      : shape(rapt::bench::parse_shape(name)),
        sizes(shape.gemm()),
        a{shape.a_type(), 1, static_cast<std::byte*>(a)},
        b{shape.modifiers.type, 1, static_cast<std::byte*>(b)},
        c(c) {
    if (this->b.type != rapt::bench::plain_type(this->b.type))
      throw std::invalid_argument(std::string(name) + " is not for peers: b has scales");
  }
};

using Sgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                       const float* a, int lda, const float* b, int ldb, float beta, float* c,
                       int ldc);

// oneDNN's dnnl_primitive_execute: arguments are pairs of a number and a memory object.
using Execute = int (*)(void* primitive, void* stream, int count, const void* arguments);

}  // namespace

#define RAPT_SHIM extern "C" __attribute__((visibility("default")))

RAPT_SHIM const char* rapt_bench_error() { return g_error.c_str(); }

RAPT_SHIM const char* rapt_bench_target() {
  static std::string name;
  name = rapt::target();
  return name.c_str();
}

// What a shape cannot do without: operations, and bytes that are streamed, 0 where arithmetic is
// the limit by far. -1 where a name is no shape (see rapt_bench_error).
RAPT_SHIM double rapt_bench_flops(const char* shape) {
  double flops = -1;
  guarded([&] {
    flops = rapt::bench::parse_shape(shape).flops();
    return std::int64_t{0};
  });
  return flops;
}

RAPT_SHIM double rapt_bench_streamed_bytes(const char* name) {
  double bytes = -1;
  guarded([&] {
    const rapt::bench::Shape shape = rapt::bench::parse_shape(name);
    bytes = shape.is_streaming() ? shape.streamed_bytes() : 0;
    return std::int64_t{0};
  });
  return bytes;
}

RAPT_SHIM int rapt_bench_all_threads() { return rapt::default_executor().workers(); }

// Limits, measured for about `seconds`: GFLOP/s of multiply-adds of rapt's target, GB/s of reading.
RAPT_SHIM double rapt_bench_fma_gflops(int threads, double seconds) {
  rapt::bench::Meter meter = rapt::bench::Meter::fma(rapt::target(), threads);
  meter.measure(seconds);
  return meter.best();
}

RAPT_SHIM double rapt_bench_read_gbytes(int threads, const float* data, std::int64_t size,
                                        double seconds) {
  rapt::bench::Meter meter =
      rapt::bench::Meter::read(rapt::target(), threads, {data, static_cast<std::size_t>(size)});
  meter.measure(seconds);
  return meter.best();
}

// Checks of a result that anyone computed. `between`: what the rounding of c, or of scores and
// weights, may cost, as in expected_gemm() and expected_attention().
RAPT_SHIM const char* rapt_bench_check_gemm(const char* shape, void* a, void* b, float* c,
                                            double between) {
  return check([&] {
    const Gemm gemm(shape, a, b, c);
    return compare(
        rapt::bench::expected_gemm(gemm.shape, {gemm.a, gemm.b, nullptr, nullptr}, between),
        rapt::Type::f32, c);
  });
}

RAPT_SHIM const char* rapt_bench_check_attention(const char* shape, void* q, void* k, void* v,
                                                 void* out, double between) {
  return check([&] {
    const Attention attention(shape, q, k, v, out);
    return compare(rapt::bench::expected_attention(attention.layout, attention.arrays, between),
                   attention.arrays.out.type, out);
  });
}

// Gradients are compared with those that follow from rapt's own out and lse.
RAPT_SHIM const char* rapt_bench_check_backward(const char* shape, void* q, void* k, void* v,
                                                void* dout, void* result, double between) {
  return check([&] {
    using rapt::bench::Result;
    const Backward found(shape, q, k, v, dout, result);
    std::vector<std::byte> own(
        static_cast<std::size_t>(found.gradients.dq.data - found.arrays.out.data));
    rapt::bench::BackwardArrays arrays = found.gradients;
    arrays.forward.out.data = own.data();
    found.layout.run(arrays.forward, rapt::default_executor());
    const auto of = [&](const char* name, const rapt::bench::StoredRows& rows) {
      return Result{name, rows.type, {reinterpret_cast<float*>(rows.data), own.size() / 4}};
    };
    const Result gradients[] = {of("grad_q", arrays.dq), of("grad_k", arrays.dk),
                                of("grad_v", arrays.dv)};
    const Result out[] = {of("out", found.arrays.out)};
    const std::string wrong =
        compare(rapt::bench::expected_attention(found.layout, found.arrays, between), out);
    return wrong.empty()
               ? compare(rapt::bench::expected_backward(found.layout, arrays, true, between),
                         gradients)
               : wrong;
  });
}

RAPT_SHIM const char* rapt_bench_check_layer(const LayerSizes* s, const float* tokens,
                                             const LayerWeights* weights, const float* result) {
  return check([&] {
    return compare(rapt::bench::expected_layer(*s, tokens, *weights), rapt::Type::f32, result);
  });
}

RAPT_SHIM std::int64_t rapt_bench_time_gemm(const char* shape, void* a, void* b, float* c,
                                            int threads, const Stopwatch* watch) {
  return guarded([&] {
    const Gemm gemm(shape, a, b, c);
    const rapt::bench::GemmSizes s = gemm.sizes;
    const auto dense = [](auto view, const rapt::bench::StoredRows& from, std::int64_t rows,
                          std::int64_t columns) {
      const std::int64_t extents[] = {rows, columns}, strides[] = {columns, 1};
      return decltype(view)(from.type, from.data, extents, 2, strides, 2);
    };
    using rapt::axis::Column, rapt::axis::Inner, rapt::axis::Row;
    const auto a_view = dense(rapt::AnyView<const std::byte, Row, Inner>(), gemm.a, s.m, s.k);
    const auto b_view = dense(rapt::AnyView<const std::byte, Inner, Column>(), gemm.b, s.k, s.n);
    std::int64_t runs = 0;
    rapt::bench::on_threads(threads, [&](const rapt::Executor& executor) {
      rapt::GemmOptions options;
      options.executor = &executor;
      runs = time_runs(*watch, [&] { rapt::gemm(a_view, b_view, {c, {s.m, s.n}}, options); });
    });
    return runs;
  });
}

RAPT_SHIM std::int64_t rapt_bench_time_sgemm(Sgemm sgemm, const char* shape, const float* a,
                                             const float* b, float* c, const Stopwatch* watch) {
  constexpr int kRowMajor = 101, kNoTrans = 111;
  return guarded([&] {
    const rapt::bench::GemmSizes s = rapt::bench::parse_shape(shape).gemm();
    const int m = static_cast<int>(s.m), n = static_cast<int>(s.n), k = static_cast<int>(s.k);
    return time_runs(*watch, [&] {
      sgemm(kRowMajor, kNoTrans, kNoTrans, m, n, k, 1.0f, a, k, b, n, 0.0f, c, n);
    });
  });
}

RAPT_SHIM std::int64_t rapt_bench_time_execute(Execute execute, void* primitive, void* stream,
                                               int count, const void* arguments,
                                               const Stopwatch* watch) {
  return time_runs(*watch, [&] { execute(primitive, stream, count, arguments); });
}

// Planned: the plan is made once, and its runs are timed.
RAPT_SHIM std::int64_t rapt_bench_time_attention(const char* shape, void* q, void* k, void* v,
                                                 void* out, int threads, int planned,
                                                 const Stopwatch* watch) {
  return guarded([&] {
    const Attention attention(shape, q, k, v, out);
    std::int64_t runs = 0;
    rapt::bench::on_threads(threads, [&](const rapt::Executor& executor) {
      if (planned != 0) {
        const rapt::AttentionPlan plan = attention.layout.plan(attention.arrays, executor);
        runs = time_runs(*watch, [&] { plan.run(); });
      } else {
        runs = time_runs(*watch, [&] { attention.layout.run(attention.arrays, executor); });
      }
    });
    return runs;
  });
}

// The backward pass, or training: attention and it.
RAPT_SHIM std::int64_t rapt_bench_time_backward(const char* shape, void* q, void* k, void* v,
                                                void* dout, void* result, int threads,
                                                const Stopwatch* watch) {
  return guarded([&] {
    const Backward backward(shape, q, k, v, dout, result);
    std::int64_t runs = 0;
    rapt::bench::on_threads(threads, [&](const rapt::Executor& executor) {
      const auto forward = [&] { backward.layout.run(backward.arrays, executor); };
      if (!backward.trains()) forward();
      runs = time_runs(*watch, [&] {
        if (backward.trains()) forward();
        backward.layout.run_backward(backward.gradients, executor);
      });
    });
    return runs;
  });
}

// A layer with these weights, to be freed by rapt_bench_free_layer; null on failure.
RAPT_SHIM rapt::MultiHeadAttention* rapt_bench_make_layer(const LayerSizes* s,
                                                          const LayerWeights* weights) {
  rapt::MultiHeadAttention* layer = nullptr;
  guarded([&] {
    const std::int64_t size = s->heads * s->embedding * s->depth;
    rapt::LayerParameters parameters;
    parameters.w_q.assign(weights->q, weights->q + size);
    parameters.w_k.assign(weights->k, weights->k + size);
    parameters.w_v.assign(weights->v, weights->v + size);
    parameters.output.assign(weights->output, weights->output + size);
    const rapt::LayerShape shape{s->embedding, 0, s->heads, s->depth, s->depth};
    layer = new rapt::MultiHeadAttention(shape, std::move(parameters));
    return std::int64_t{0};
  });
  return layer;
}

RAPT_SHIM void rapt_bench_free_layer(rapt::MultiHeadAttention* layer) { delete layer; }

RAPT_SHIM std::int64_t rapt_bench_time_layer(const rapt::MultiHeadAttention* layer,
                                             const LayerSizes* s, const float* tokens,
                                             float* result, int threads, const Stopwatch* watch) {
  return guarded([&] {
    std::int64_t runs = 0;
    rapt::bench::on_threads(threads, [&](const rapt::Executor& executor) {
      rapt::AttentionOptions options;
      options.executor = &executor;
      const rapt::KvTokensView kv(tokens, {s->batch, s->seq, s->embedding});
      runs = time_runs(*watch, [&] {
        (*layer)({tokens, {s->batch, s->seq, s->embedding}}, kv, kv,
                 {result, {s->batch, s->seq, s->embedding}}, options);
      });
    });
    return runs;
  });
}
