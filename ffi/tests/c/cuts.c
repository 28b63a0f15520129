// Connections that are cut are made anew, and no signal (SIGPIPE) is raised by writing to them.
#include <sys/socket.h>

#include "check.h"

#define ROUNDS 3
#define FILES 1024

// Ends what this process may send on every connection that it has.
static int cut(void) {
  int connections = 0;
  for (int fd = 3; fd < FILES; fd++) connections += shutdown(fd, SHUT_WR) == 0;
  return connections;
}

int main(void) {
  kvx_engine a = open_engine("c-cuts-a"), b = open_engine("c-cuts-b");
  static uint8_t from[1 << 20], to[sizeof from];
  memset(from, 7, sizeof from);
  kvx_region source = 0, target = 0;
  OK(kvx_register(a, from, sizeof from, 0, &source));
  OK(kvx_register(b, to, sizeof to, KVX_REMOTE_WRITE, &target));
  uint8_t blob[1024];
  size_t len = sizeof blob;
  OK(kvx_engine_metadata(b, &target, 1, blob, &len));
  kvx_peer peer = 0;
  OK(kvx_peer_add(a, blob, len, &peer));
  kvx_operation operation = 0;
  OK(kvx_peer_ready(peer, &operation));
  OK(kvx_operation_wait(operation, -1));
  OK(kvx_operation_release(operation));

  const uint64_t begin = (uintptr_t)from, there = (uintptr_t)to, all = sizeof from;
  kvx_spans ours = 0, theirs = 0;
  kvx_prepared write = 0;
  OK(kvx_spans_local_at(&source, 1, &begin, &all, 1, &ours));
  OK(kvx_spans_remote_at(peer, &there, &all, 1, &theirs));
  OK(kvx_prepare(KVX_WRITE, ours, theirs, &write));
  for (int round = 0; round < ROUNDS; round++) {
    memset(to, 0, sizeof to);
    CHECK(cut() >= 2);
    kvx_operation told = 0;
    OK(kvx_peer_notify(peer, (const uint8_t *)"cut", 3, &told));
    OK(kvx_post(write, NULL, &operation));
    OK(kvx_operation_wait(told, -1));
    OK(kvx_operation_wait(operation, -1));
    CHECK(memcmp(from, to, sizeof to) == 0);
    OK(kvx_operation_release(told));
    OK(kvx_operation_release(operation));
  }
  OK(kvx_engine_close(a));
  OK(kvx_engine_close(b));
  return 0;
}
