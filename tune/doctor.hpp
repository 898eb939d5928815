// rapt doctor: what this machine is, what rapt makes of it, what it gives, and what is wrong.
#pragma once

namespace rapt::tune {

// Prints as it goes, some seconds. Whether every result of the self-check was right.
bool doctor();

}  // namespace rapt::tune
