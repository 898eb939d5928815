// What librapt.so shows: everything else in it is hidden.
#pragma once

#if defined(__GNUC__)
#define RAPT_API __attribute__((visibility("default")))
#else
#define RAPT_API
#endif
