// attention() as a foreign function of XLA, for rapt.jax.
#include <nanobind/nanobind.h>
#include <xla/ffi/api/ffi.h>

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

// Under vmap, what all share has an axis of extent 1 where the others count: broadcast.
Array broadcast(Array array, const Array& to) {
  for (int i = 0; array.rank == to.rank && i < array.rank - 3; ++i) {
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
    std::string all;
    value("operands", all);
    for (std::size_t begin = 0; begin < all.size();) {
      const std::size_t end = std::min(all.find(',', begin), all.size());
      names_.push_back(all.substr(begin, end - begin));
      begin = end + 1;
    }
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
  template <class ViewType>
  std::int64_t array(const char* name, ViewType& view) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) return 0;
    const auto index = static_cast<std::size_t>(found - names_.begin());
    const Array array = array_of(name, must(operands_.get<ffi::AnyBuffer>(index)));
    view = typed(static_cast<ViewType*>(nullptr), array, pool_);
    return array.rank > 0 ? array.extent(-1) : 0;
  }

 private:
  template <class T>
  static T must(const ffi::ErrorOr<T>& given) {
    if (given.has_error()) throw TypeError(given.error().message());
    return given.value();
  }

  ffi::RemainingArgs operands_;
  ffi::Dictionary attributes_;
  std::vector<std::string> names_;
  Pool pool_;
};

void attend(const ffi::AnyBuffer& q, const ffi::AnyBuffer& k, const ffi::AnyBuffer& v,
            ffi::RemainingArgs operands, const ffi::AnyBuffer& out, ffi::RemainingRets more_results,
            ffi::Dictionary attributes) {
  Call call(operands, attributes);
  AttentionOptions options;
  read_options(call, options);
  std::string layout_name = "bhsd";
  std::optional<std::int64_t> n_threads;
  call.value("layout", layout_name);
  call.value("threads", n_threads);
  const Layout layout = layout_of(layout_name);
  const AtMost threads(n_threads);
  options.executor = threads.get();

  const Array out_array = array_of("out", out);
  const auto rows = [&](const char* name, const ffi::AnyBuffer& buffer, bool is_pool) {
    const Array array = array_of(name, buffer);
    return is_pool ? array : broadcast(array, out_array);
  };
  const bool paged = static_cast<bool>(options.block_table);
  if (more_results.size() > 0) {
    ffi::Result<ffi::AnyBuffer> lse = more_results.get<ffi::AnyBuffer>(0).value();
    options.lse = view_of<LseView>(array_of("lse", *lse));
  }
  attention(stored_view<AnyQ>(rows("q", q, false), layout),
            stored_view<AnyK>(rows("k", k, paged), layout),
            stored_view<AnyV>(rows("v", v, paged), layout), stored_view<AnyOut>(out_array, layout),
            options);
}

ffi::Error handle(ffi::AnyBuffer q, ffi::AnyBuffer k, ffi::AnyBuffer v, ffi::RemainingArgs operands,
                  ffi::Result<ffi::AnyBuffer> out, ffi::RemainingRets more_results,
                  ffi::Dictionary attributes) {
  try {
    attend(q, k, v, operands, *out, more_results, attributes);
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::InvalidArgument(error.what());
  }
}

XLA_FFI_DEFINE_HANDLER(kAttention, handle,
                       ffi::Ffi::Bind()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .Ret<ffi::AnyBuffer>()
                           .RemainingRets()
                           .Attrs());

}  // namespace

void add_jax(nb::module_& module) {
  module.def("_jax_attention", [] { return nb::capsule(reinterpret_cast<void*>(kAttention)); });
}

}  // namespace rapt::python
