#include "progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace rapt::tune {
namespace {

bool is_terminal(int fd) {
  const char* const term = std::getenv("TERM");
  return ::isatty(fd) == 1 && (term == nullptr || std::strcmp(term, "dumb") != 0);
}

std::string time_text(double seconds) {
  const int whole = static_cast<int>(std::max(seconds, 0.0) + 0.5);
  if (whole < 60) return std::to_string(whole) + " s";
  return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
}

}  // namespace

bool colours(int fd) {
  const char* const no_color = std::getenv("NO_COLOR");
  return is_terminal(fd) && (no_color == nullptr || *no_color == '\0');
}

Progress::Progress(double planned) : terminal_(is_terminal(STDERR_FILENO)), planned_(planned) {}

double Progress::elapsed() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

void Progress::begin(const std::string& what, double planned) {
  planned_before_ += planned_now_;
  planned_now_ = planned;
  began_ = elapsed();
  what_ = what;
  detail_.clear();
  drawn_ = -1;
  if (terminal_) draw();
}

void Progress::step(const std::string& detail) {
  detail_ = detail;
  if (terminal_ && elapsed() - drawn_ >= 0.1) draw();
}

void Progress::note(const std::string& line) {
  clear();
  std::fprintf(stderr, "%5.0f s  %s\n", elapsed(), line.c_str());
  if (terminal_) draw();
}

void Progress::clear() {
  if (terminal_ && drawn_ >= 0) std::fputs("\r\033[K", stderr);
  drawn_ = -1;
}

void Progress::draw() {
  constexpr int kWidth = 24;
  // Pieces use a similar share of what they were given.
  const double in_piece = std::min(elapsed() - began_, planned_now_);
  const double share = planned_before_ > 0 ? std::min(began_ / planned_before_, 1.0) : 1.0;
  const double left = std::max((planned_ - planned_before_) * share - in_piece, 0.0);
  done_ = std::max(done_, elapsed() / std::max(elapsed() + left, 1e-9));  // a bar does not go back
  const int filled = std::clamp(static_cast<int>(done_ * kWidth), 0, kWidth);
  std::string line = "[" + std::string(static_cast<std::size_t>(filled), '#') +
                     std::string(static_cast<std::size_t>(kWidth - filled), '.') + "] " +
                     std::to_string(static_cast<int>(done_ * 100)) + " %, " + time_text(left) +
                     " left  " + what_ + (detail_.empty() ? "" : ": " + detail_);
  line.resize(
      std::min<std::size_t>(line.size(), 100));  // never wrap: a wrapped line is not rewritten
  std::fprintf(stderr, "\r%s\033[K", line.c_str());
  drawn_ = elapsed();
}

}  // namespace rapt::tune
