// The extension module rapt._core: rapt's C++ API for Python, one more caller of it.
#include "module.hpp"

NB_MODULE(_core, module) {
  using namespace rapt::python;  // NOLINT(google-build-using-namespace)

  // Two kinds of error, with the message of C++.
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const TypeError& error) {
      PyErr_SetString(PyExc_TypeError, error.what());
    } catch (const rapt::Error& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
    }
  });

  module.attr("__version__") = RAPT_VERSION;
  add_attention(module);
  add_backward(module);
  add_surroundings(module);
  add_layer(module);
  add_machine(module);
#ifdef RAPT_WITH_JAX
  add_jax(module);
#endif
}
