// Import and export of arrays.
#include "objects.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <unordered_map>

namespace rapt::python {

// DLPack's DLManagedTensorVersioned, and behind it what this one lives on.
struct SharedTensor {
  std::uint32_t major = 1, minor = 0;
  void* context = nullptr;
  void (*release)(SharedTensor*) = [](SharedTensor* self) { delete self; };
  std::uint64_t flags = 0;
  nb::dlpack::dltensor tensor;
  Array array;
  std::shared_ptr<void> memory;
};

// DLPack 1.3's table of functions, by which a library takes in and hands out an array without the
// capsules that cost some microseconds each. Only the functions that are used have their types
// here.
struct ExchangeApi {
  struct {
    std::uint32_t major, minor;
  } version;
  const void* previous;
  const void *allocate, *from_object;
  int (*to_object)(SharedTensor* tensor, void** object);     // takes the tensor over
  int (*describe)(void* object, nb::dlpack::dltensor* out);  // borrows; -1: a Python error is set
  const void* current_work_stream;
};

namespace {

Library look_at(nb::handle type) {
  Library library;
  for (nb::handle base : nb::borrow<nb::tuple>(type.attr("__mro__"))) {
    const nb::object module = nb::getattr(base, "__module__", nb::str(""));
    if (!nb::isinstance<nb::str>(module)) continue;
    const std::string_view name = nb::borrow<nb::str>(module).c_str();
    if (name == "torch") library.name = Library::torch;
    if (name.substr(0, 6) == "jaxlib") library.name = Library::jax;
  }
  const nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
  if (PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api") != 0) {
    const auto* api =
        static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (api->version.major == 1 && api->describe != nullptr) library.exchange = api;
  }
  return library;
}

// NumPy lets its arrays of ml_dtypes.bfloat16 out through neither protocol. (Its dtype.name takes a
// microsecond: what is of no kind of NumPy's own is looked at first.)
bool is_numpy_bfloat16(nb::handle object) {
  const auto is = [](nb::handle of, const char* attribute, std::string_view text) {
    const nb::object value = nb::getattr(of, attribute, nb::none());
    return nb::isinstance<nb::str>(value) && nb::borrow<nb::str>(value).c_str() == text;
  };
  const nb::object dtype = nb::getattr(object, "dtype", nb::none());
  return is(dtype, "kind", "V") && is(dtype, "name", "bfloat16");
}

Array described(const char* name, const nb::dlpack::dltensor& tensor) {
  if (tensor.device.device_type != nb::device::cpu::value)
    throw TypeError(std::string(name) + " is not in the CPU's memory");
  Array array;
  array.name = name;
  array.element = {tensor.dtype.code, tensor.dtype.bits};
  // An array without elements is given all the same, which a null pointer would not say.
  static std::byte nothing[64];
  array.data =
      tensor.data == nullptr ? nothing : static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
  for (int i = 0; i < tensor.ndim; ++i) array.append(tensor.shape[i], tensor.strides[i]);
  return array;
}

template <class Imported>
Array described(const char* name, const Imported& imported) {
  nb::dlpack::dltensor tensor;
  tensor.data = imported.data_handle();
  tensor.device.device_type = imported.device_type();
  tensor.ndim = static_cast<std::int32_t>(imported.ndim());
  tensor.dtype = imported.dtype();
  tensor.shape = const_cast<std::int64_t*>(imported.shape_ptr());
  tensor.strides = const_cast<std::int64_t*>(imported.stride_ptr());
  tensor.byte_offset = imported.byte_offset();
  return described(name, tensor);
}

// A tensor that takes part in torch's differentiation would silently lose its gradient here.
void refuse_gradient(const char* name, nb::handle object) {
  if (!nb::cast<bool>(object.attr("requires_grad")) ||
      !nb::cast<bool>(nb::module_::import_("torch").attr("is_grad_enabled")()))
    return;
  throw TypeError(std::string(name) +
                  " requires a gradient, which rapt.torch.attention alone records: call that, or "
                  "this under torch.no_grad(), or pass " +
                  name + ".detach()");
}

[[noreturn]] void no_array(const char* name, nb::handle object, const char* wanted) {
  throw TypeError(std::string(name) + " is a " + Py_TYPE(object.ptr())->tp_name + ", but must be " +
                  wanted + " on the CPU, with DLPack or the buffer protocol");
}

}  // namespace

Library library_of(nb::handle object) {
  static auto& known = *new std::unordered_map<PyTypeObject*, Library>;
  PyTypeObject* const type = Py_TYPE(object.ptr());
  const auto found = known.find(type);
  if (found != known.end()) return found->second;
  const Library library = look_at(reinterpret_cast<PyObject*>(type));
  Py_INCREF(type);  // or another type might come to live at this address
  return known.emplace(type, library).first->second;
}

Array Objects::read(const char* name, nb::handle object) { return imported(name, object, false); }
Array Objects::write(const char* name, nb::handle object) { return imported(name, object, true); }

Array Objects::imported(const char* name, nb::handle object, bool to_be_written) {
  const Library library = library_of(object);
  if (library.name == Library::torch) refuse_gradient(name, object);
  if (to_be_written && library.name == Library::jax)
    throw TypeError(std::string(name) + " is an array of JAX, which are never written");
  if (library.exchange != nullptr) {
    nb::dlpack::dltensor tensor;
    if (library.exchange->describe(object.ptr(), &tensor) == 0) return described(name, tensor);
    PyErr_Clear();  // no memory of the CPU's, which the slow way finds as well
  }
  const bool as_bits = library.name == Library::numpy && is_numpy_bfloat16(object);
  const nb::object bits = as_bits ? object.attr("view")("uint16") : nb::borrow(object);
  Array array;
  if (to_be_written) {
    nb::ndarray<> imported;
    if (!nb::try_cast(bits, imported, false)) no_array(name, object, "a writable array");
    array = described(name, imported);
    written_.push_back(std::move(imported));
  } else {
    nb::ndarray<nb::ro> imported;
    if (!nb::try_cast(bits, imported, false)) no_array(name, object, "an array");
    array = described(name, imported);
    read_.push_back(std::move(imported));
  }
  if (as_bits) array.element = kBf16;
  return array;
}

Result::Result(const char* name, Element element, const std::vector<std::int64_t>& extents) {
  array_.name = name;
  array_.element = element;
  std::size_t bytes = element.bits / 8;
  for (const std::int64_t extent : extents) {
    array_.append(extent, 0);
    bytes *= static_cast<std::size_t>(extent);
  }
  detail::dense_strides(array_.extents, array_.rank, array_.strides);
  // JAX takes memory without a copy only on a multiple of 64.
  constexpr std::size_t kAlignment = 64;
  array_.data = std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
  if (array_.data == nullptr) throw std::bad_alloc();
  memory_.reset(array_.data, std::free);
}

nb::object Result::as(Library library) const {
  if (library.name == Library::torch && library.exchange != nullptr)
    return exchanged(*library.exchange);
  const nb::capsule owner(new std::shared_ptr<void>(memory_), [](void* memory) noexcept {
    delete static_cast<std::shared_ptr<void>*>(memory);
  });
  const auto cast = [&]<class Framework>(Framework, Element element) {
    std::size_t extents[kMaxAxes] = {};
    std::copy_n(array_.extents, array_.rank, extents);
    return nb::cast(nb::ndarray<Framework>(array_.data, static_cast<std::size_t>(array_.rank),
                                           extents, owner, nullptr,
                                           nb::dlpack::dtype{element.code, element.bits, 1}));
  };
  if (library.name == Library::torch) return cast(nb::pytorch(), array_.element);
  if (library.name == Library::jax) return cast(nb::jax(), array_.element);
  if (array_.element != kBf16) return cast(nb::numpy(), array_.element);
  return cast(nb::numpy(), Element{1, 16})
      .attr("view")(nb::module_::import_("ml_dtypes").attr("bfloat16"));
}

nb::object Result::exchanged(const ExchangeApi& api) const {
  auto shared = std::make_unique<SharedTensor>();
  shared->array = array_;
  shared->memory = memory_;
  shared->tensor.data = array_.data;
  shared->tensor.device = {nb::device::cpu::value, 0};
  shared->tensor.ndim = array_.rank;
  shared->tensor.dtype = {array_.element.code, array_.element.bits, 1};
  shared->tensor.shape = shared->array.extents;
  shared->tensor.strides = shared->array.strides;
  shared->tensor.byte_offset = 0;
  void* object = nullptr;
  if (api.to_object(shared.release(), &object) != 0) throw nb::python_error();
  return nb::steal(static_cast<PyObject*>(object));
}

}  // namespace rapt::python
