// attention() and attention_backward() as foreign functions of XLA, for rapt.jax.
#include <nanobind/nanobind.h>
#include <xla/ffi/api/ffi.h>

#include <cfenv>

#include "module.hpp"

namespace rapt::python {
namespace {

namespace ffi = xla::ffi;

Element element_of(const char* name, ffi::DataType type) {
  switch (type) {
    case ffi::PRED:
      return kBool;
    case ffi::S8:
      return kInt8;
    case ffi::U8:
      return kUint8;
    case ffi::S32:
      return kInt32;
    case ffi::S64:
      return kInt64;
    case ffi::F16:
      return kF16;
    case ffi::F32:
      return kF32;
    case ffi::F64:
      return kF64;
    case ffi::BF16:
      return kBf16;
    default:
      throw TypeError(std::string("the type of ") + name + " is none that rapt takes");
  }
}

Array array_of(const char* name, const ffi::AnyBuffer& buffer) {
  Array array;
  array.name = name;
  array.element = element_of(name, buffer.element_type());
  array.data = buffer.untyped_data();
  for (const std::int64_t extent : buffer.dimensions()) array.append(extent, 0);
  detail::dense_strides(array.extents, array.rank, array.strides);
  return array;
}

// Under vmap, what all share has an axis of extent 1 where the others count: broadcast. The last
// axes are those with names, which are never broadcast here.
Array broadcast(Array array, const Array& to, int named = 3) {
  for (int i = 0; i < array.rank - named; ++i) {
    if (array.extents[i] != 1) continue;
    array.extents[i] = to.extents[i];
    array.strides[i] = 0;
  }
  return array;
}

// Options by name: numbers are attributes, arrays are operands, whose names one attribute lists.
class Call {
 public:
  Call(ffi::RemainingArgs operands, ffi::Dictionary attributes)
      : operands_(operands), attributes_(attributes) {
    names_ = names("operands");
  }

  // A list of names, which XLA has not.
  std::vector<std::string> names(const char* attribute) {
    std::string all;
    value(attribute, all);
    std::vector<std::string> result;
    for (std::size_t begin = 0; begin < all.size();) {
      const std::size_t end = std::min(all.find(',', begin), all.size());
      result.push_back(all.substr(begin, end - begin));
      begin = end + 1;
    }
    return result;
  }

  template <class T>
  void value(const char* name, T& field) {
    if (attributes_.contains(name)) field = must<T>(attributes_.get<T>(name));
  }
  template <class T>
  void value(const char* name, std::optional<T>& field) {
    if (attributes_.contains(name)) value(name, field.emplace());
  }
  void value(const char* name, std::string& field) {
    if (attributes_.contains(name)) field = must(attributes_.get<std::string_view>(name));
  }
  void value(const char* name, std::array<std::int64_t, 2>& field) {
    if (!attributes_.contains(name)) return;
    const auto given = must(attributes_.get<ffi::Span<const std::int64_t>>(name));
    std::copy_n(given.begin(), std::min(given.size(), field.size()), field.begin());
  }
  // Numbers that change from call to call are operands, of 32 bits as all integers of JAX are: the
  // words of the number, the lowest first.
  void value(const char* name, std::uint32_t& field) { field = words<1>(name)[0]; }
  void value(const char* name, std::uint64_t& field) {
    const auto [low, high] = words<2>(name);
    field = low | std::uint64_t{high} << 32;
  }

  std::optional<Array> operand(const char* name) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) return {};
    const auto index = static_cast<std::size_t>(found - names_.begin());
    return array_of(name, must(operands_.get<ffi::AnyBuffer>(index)));
  }
  template <class ViewType>
  std::int64_t array(const char* name, ViewType& view) {
    const std::optional<Array> array = operand(name);
    if (!array) return 0;
    view = typed(static_cast<ViewType*>(nullptr), *array, pool_);
    return array->rank > 0 ? array->extent(-1) : 0;
  }
  // The same, broadcast to what has as many named axes.
  template <class... Axes, class T>
  void array(const char* name, View<const T, Axes...>& view, const Array& to) {
    const std::optional<Array> array = operand(name);
    if (array) view = typed(&view, broadcast(*array, to, sizeof...(Axes)), pool_);
  }

 private:
  template <class T>
  static T must(const ffi::ErrorOr<T>& given) {
    if (given.has_error()) throw TypeError(given.error().message());
    return given.value();
  }

  template <std::size_t n>
  std::array<std::uint32_t, n> words(const char* name) {
    std::array<std::uint32_t, n> result{};
    const std::optional<Array> array = operand(name);
    if (!array) return result;
    std::int64_t size = 1;
    for (int i = 0; i < array->rank; ++i) size *= array->extents[i];
    if (size != n || array->element != kInt32)
      throw Error(ErrorCode::bad_value,
                  std::string(name) + " must be one number, the same for the whole batch");
    std::memcpy(result.data(), array->data, sizeof(result));
    return result;
  }

  ffi::RemainingArgs operands_;
  ffi::Dictionary attributes_;
  std::vector<std::string> names_;
  Pool pool_;
};

// What both functions read first.
struct Problem {
  Problem(ffi::RemainingArgs operands, ffi::Dictionary attributes) : call(operands, attributes) {
    read_options(call, options);
    std::string layout_name = "bhsd";
    std::optional<std::int64_t> n_threads;
    call.value("layout", layout_name);
    call.value("threads", n_threads);
    layout = layout_of(layout_name);
    options.executor = threads.emplace(n_threads).get();
  }

  Call call;
  AttentionOptions options;
  Layout layout = Layout::bhsd;
  std::optional<AtMost> threads;
};

void attend(const ffi::AnyBuffer& q, const ffi::AnyBuffer& k, const ffi::AnyBuffer& v,
            ffi::RemainingArgs operands, ffi::AnyBuffer out, ffi::AnyBuffer lse,
            ffi::Dictionary attributes) {
  Problem problem(operands, attributes);
  const Layout layout = problem.layout;
  const Array out_array = array_of("out", out);
  const auto rows = [&](const char* name, const ffi::AnyBuffer& buffer, bool is_pool) {
    const Array array = array_of(name, buffer);
    return is_pool ? array : broadcast(array, out_array);
  };
  const bool paged = static_cast<bool>(problem.options.block_table);
  problem.options.lse = view_of<LseView>(array_of("lse", lse));
  attention(stored_view<AnyQ>(rows("q", q, false), layout),
            stored_view<AnyK>(rows("k", k, paged), layout),
            stored_view<AnyV>(rows("v", v, paged), layout), stored_view<AnyOut>(out_array, layout),
            problem.options);
}

void attend_backward(const ffi::AnyBuffer& q, const ffi::AnyBuffer& k, const ffi::AnyBuffer& v,
                     const ffi::AnyBuffer& out, const ffi::AnyBuffer& lse,
                     const ffi::AnyBuffer& grad_out, ffi::RemainingArgs operands,
                     ffi::AnyBuffer grad_q, ffi::AnyBuffer grad_k, ffi::AnyBuffer grad_v,
                     ffi::RemainingRets more_results, ffi::Dictionary attributes) {
  Problem problem(operands, attributes);
  AttentionOptions& options = problem.options;
  const Layout layout = problem.layout;
  const Array batch = array_of("grad_q", grad_q);
  const auto rows = [&](const char* name, const ffi::AnyBuffer& buffer) {
    return broadcast(array_of(name, buffer), batch);
  };
  BackwardOptions backward;
  problem.call.array("grad_lse", backward.grad_lse, batch);
  std::size_t n = 0;
  for (const std::string& name : problem.call.names("gradients")) {
    ffi::Result<ffi::AnyBuffer> result = more_results.get<ffi::AnyBuffer>(n++).value();
    const Array array = array_of("a gradient", *result);
    // What all elements of vmap share has a gradient for each of them, which JAX sums.
    const auto of = [&]<class... Axes>(const char* option, View<const float, Axes...>& view,
                                       View<float, Axes...>& grad) {
      if (name != option) return;
      problem.call.array(option, view, array);
      grad = view_of<View<float, Axes...>>(array);
    };
    of("bias", options.bias, backward.grad_bias);
    of("alibi_slopes", options.alibi_slopes, backward.grad_alibi_slopes);
    of("sinks", options.sinks, backward.grad_sinks);
  }
  attention_backward(
      stored_view<AnyQ>(rows("q", q), layout), stored_view<AnyK>(rows("k", k), layout),
      stored_view<AnyV>(rows("v", v), layout), stored_view<AnyOutIn>(rows("out", out), layout),
      view_of<LseIn>(broadcast(array_of("lse", lse), batch, 2)),
      stored_view<AnyOutIn>(rows("grad_out", grad_out), layout),
      stored_view<AnyGradQ>(batch, layout),
      stored_view<AnyGradK>(array_of("grad_k", grad_k), layout),
      stored_view<AnyGradV>(array_of("grad_v", grad_v), layout), options, backward);
}

// XLA takes denormals for zero. Here they count, as in the threads that rapt runs on.
class DefaultArithmetic {
 public:
  DefaultArithmetic() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  DefaultArithmetic(const DefaultArithmetic&) = delete;
  DefaultArithmetic& operator=(const DefaultArithmetic&) = delete;
  ~DefaultArithmetic() { std::fesetenv(&before_); }

 private:
  std::fenv_t before_;
};

// Whatever is thrown becomes an error of JAX.
template <class Run>
ffi::Error handled(const Run& run) {
  const DefaultArithmetic arithmetic;
  try {
    run();
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::InvalidArgument(error.what());
  }
}

using Buffer = ffi::AnyBuffer;
using ResultBuffer = ffi::Result<ffi::AnyBuffer>;

XLA_FFI_DEFINE_HANDLER(kAttention,
                       ([](Buffer q, Buffer k, Buffer v, ffi::RemainingArgs operands,
                           ResultBuffer out, ResultBuffer lse, ffi::Dictionary attributes) {
                         return handled([&] { attend(q, k, v, operands, *out, *lse, attributes); });
                       }),
                       ffi::Ffi::Bind()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .RemainingArgs()
                           .Ret<Buffer>()
                           .Ret<Buffer>()
                           .Attrs());

XLA_FFI_DEFINE_HANDLER(kBackward,
                       ([](Buffer q, Buffer k, Buffer v, Buffer out, Buffer lse, Buffer grad_out,
                           ffi::RemainingArgs operands, ResultBuffer grad_q, ResultBuffer grad_k,
                           ResultBuffer grad_v, ffi::RemainingRets more_results,
                           ffi::Dictionary attributes) {
                         return handled([&] {
                           attend_backward(q, k, v, out, lse, grad_out, operands, *grad_q, *grad_k,
                                           *grad_v, more_results, attributes);
                         });
                       }),
                       ffi::Ffi::Bind()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .RemainingArgs()
                           .Ret<Buffer>()
                           .Ret<Buffer>()
                           .Ret<Buffer>()
                           .RemainingRets()
                           .Attrs());

}  // namespace

void add_jax(nb::module_& module) {
  module.def("_jax_attention", [] { return nb::capsule(reinterpret_cast<void*>(kAttention)); });
  module.def("_jax_attention_backward",
             [] { return nb::capsule(reinterpret_cast<void*>(kBackward)); });
}

}  // namespace rapt::python
