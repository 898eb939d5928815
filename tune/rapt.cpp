// rapt: the command for whoever uses the library.
#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>

#include "doctor.hpp"

int main(int argc, char** argv) {
  CLI::App app("Attention for CPUs.");
  app.set_version_flag("--version", "rapt " RAPT_VERSION);
  app.require_subcommand(1);
  app.add_subcommand(
      "doctor",
      "What this machine is, what rapt makes of it, and what is wrong: some seconds. "
      "The exit status is 1 where a result was wrong.");
  try {
    app.parse(argc, argv);
    return rapt::tune::doctor() ? 0 : 1;
  } catch (const CLI::Error& error) {
    return app.exit(error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rapt: %s\n", error.what());
    return 2;
  }
}
