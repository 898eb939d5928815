// How far the tuner is, on stderr: one line that is rewritten on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <string>

namespace rapt::tune {

// Whether text on this file descriptor may be coloured: a terminal, and not NO_COLOR
// (https://no-color.org).
bool colours(int fd);

class Progress {
 public:
  // planned: seconds of the whole run at most.
  explicit Progress(double planned);
  ~Progress() { clear(); }

  // A piece of the work begins that may take so many seconds; what was planned for the pieces
  // before it and not used shortens the whole.
  void begin(const std::string& what, double planned);
  void step(const std::string& detail);  // within the piece; redraws at most 10 times a second
  void note(const std::string& line);    // a line that stays
  void clear();

  double elapsed() const;

 private:
  using Clock = std::chrono::steady_clock;
  void draw();

  const bool terminal_;
  const double planned_;
  const Clock::time_point start_ = Clock::now();
  double planned_before_ = 0,
         planned_now_ = 0;  // seconds of the pieces before this one, and of this one
  double began_ = 0;        // elapsed() when this piece began
  double drawn_ = -1;       // elapsed() at the last drawing; -1: no line is there
  double done_ = 0;
  std::string what_, detail_;
};

}  // namespace rapt::tune
