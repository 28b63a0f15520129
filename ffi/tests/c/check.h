// What the programs of this folder check with.
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvx.h"

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                   \
    }                                                                            \
  } while (0)

// The call must come to `expected`.
#define MUST(expected, call)                                                     \
  do {                                                                           \
    kvx_status status_ = (call);                                                 \
    if (status_ != (expected)) {                                                 \
      fprintf(stderr, "%s:%d: %s: %d, not %d: %s\n", __FILE__, __LINE__, #call,   \
              (int)status_, (int)(expected), kvx_error_message());               \
      exit(1);                                                                   \
    }                                                                            \
  } while (0)

#define OK(call) MUST(KVX_OK, call)

// An engine on loopback that the environment does not change.
static inline kvx_engine open_engine(const char *name) {
  kvx_engine_options options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.name = name;
  options.ignore_environment = 1;
  options.log = "kvx=warn";
  kvx_engine engine = 0;
  OK(kvx_engine_open(&options, &engine));
  return engine;
}

#endif
