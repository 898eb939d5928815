// The machine: targets, config, rapt doctor.
#include "module.hpp"
#include "tune/doctor.hpp"

namespace rapt::python {

using namespace nb::literals;  // NOLINT(google-build-using-namespace)

void add_machine(nb::module_& module) {
  module.def(
      "targets", [] { return rapt::targets(); },
      "The ISA targets that this build has and this CPU runs, best first.");
  module.def("target", [] { return rapt::target(); }, "The target that calls use now.");
  module.def(
      "set_target", [](const std::string& name) { rapt::set_target(name); }, "name"_a,
      "The target of calls that start afterwards, in every thread; '': the best.");
  nb::class_<ConfigReport>(module, "ConfigReport",
                           "Where the config in use is from, and what became of its rows.")
      .def_ro("source", &ConfigReport::source)
      .def_ro("read", &ConfigReport::read)
      .def_ro("used", &ConfigReport::used)
      .def_ro("ignored", &ConfigReport::ignored)
      .def_ro("reason", &ConfigReport::reason)
      .def_ro("refused", &ConfigReport::refused)
      .def("__str__", &ConfigReport::text);
  module.def(
      "load_config", [](const std::string& text) { return rapt::load_config(text); }, "text"_a,
      "Replaces the tuned config of the process by the text of a config header, all or nothing, "
      "and says what became of its rows; '' goes back to the one that was compiled in.");
  module.def("config_report", [] { return rapt::config_report(); }, "Of the config in use.");
  module.def(
      "config_text", [] { return rapt::config_text(); },
      "The config in use, as text that load_config() takes.");
  module.def("_doctor", &tune::doctor, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace rapt::python
