// The header as C++, and the library linked.
#include "kvx.h"

int main() {
  if (kvx_version()[0] == '\0') return 3;
  kvx_engine_options options = {};
  options.size = sizeof options;
  options.ignore_environment = 1;
  kvx_engine engine = 0;
  if (kvx_engine_open(&options, &engine) != KVX_OK) return 1;
  return kvx_engine_close(engine) == KVX_OK ? 0 : 2;
}
