// Bad arguments, made-up and spent handles, a forked child: each an error that says why.
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void says(const char *what) {
  if (strstr(kvx_error_message(), what) == NULL) {
    fprintf(stderr, "%s, not %s\n", kvx_error_message(), what);
    exit(1);
  }
}

int main(void) {
  kvx_engine engine = 0;
  MUST(KVX_INVALID, kvx_engine_open(NULL, NULL));
  says("engine");
  kvx_engine_options options;
  memset(&options, 0, sizeof options);
  MUST(KVX_INVALID, kvx_engine_open(&options, &engine));
  says("size");
  options.size = sizeof options;
  options.ignore_environment = 1;
  options.bind = "nowhere";
  MUST(KVX_INVALID, kvx_engine_open(&options, &engine));
  says("nowhere");
  options.bind = "\xff";
  MUST(KVX_INVALID, kvx_engine_open(&options, &engine));
  says("UTF-8");
  options.bind = "0.0.0.0:0";
  CHECK(kvx_engine_open(&options, &engine) < 0 && engine == 0);
  says("auth");

  // A caller of another version: what it does not know is as if zero; what we do not, must be.
  struct {
    kvx_engine_options known;
    uint64_t more[2];
  } newer;
  memset(&newer, 0, sizeof newer);
  newer.known.size = sizeof newer;
  newer.known.ignore_environment = 1;
  newer.more[1] = 1;
  MUST(KVX_UNSUPPORTED, kvx_engine_open(&newer.known, &engine));
  newer.more[1] = 0;
  OK(kvx_engine_open(&newer.known, &engine));
  OK(kvx_engine_close(engine));
  size_t older = sizeof(size_t);
  OK(kvx_engine_open((kvx_engine_options *)&older, &engine));

  kvx_engine closed = open_engine("c-refuses-closed");
  OK(kvx_engine_close(closed));
  const kvx_engine none[] = {0, 1, closed, engine + 1, engine ^ ((uint64_t)1 << 33), UINT64_MAX};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    int fd = 0;
    kvx_region region = 0;
    MUST(KVX_UNKNOWN_HANDLE, kvx_engine_close(none[i]));
    MUST(KVX_UNKNOWN_HANDLE, kvx_engine_event_descriptor(none[i], &fd));
    MUST(KVX_UNKNOWN_HANDLE, kvx_register(none[i], &fd, sizeof fd, 0, &region));
    MUST(KVX_UNKNOWN_HANDLE, kvx_buffer_register(engine, none[i], 0, &region));
    MUST(KVX_UNKNOWN_HANDLE, kvx_buffer_release(none[i]));
    MUST(KVX_UNKNOWN_HANDLE, kvx_operation_poll(none[i]));
    MUST(KVX_UNKNOWN_HANDLE, kvx_operation_cancel(none[i]));
    MUST(KVX_UNKNOWN_HANDLE, kvx_peer_remove(none[i]));
    MUST(KVX_UNKNOWN_HANDLE, kvx_region_deregister(none[i]));
    says("is no region");
  }
  MUST(KVX_UNKNOWN_HANDLE, kvx_region_deregister(engine));

  void *at = NULL;
  kvx_region region = 0;
  kvx_buffer buffer = 0;
  MUST(KVX_INVALID, kvx_buffer_allocate(0, &at, &buffer));
  MUST(KVX_OUT_OF_MEMORY, kvx_buffer_allocate((uint64_t)1 << 60, &at, &buffer));
  OK(kvx_buffer_allocate(4096, &at, &buffer));
  MUST(KVX_INVALID, kvx_buffer_register(engine, buffer, 4, &region));
  says("rights");
  MUST(KVX_INVALID, kvx_register(engine, NULL, 1, 0, &region));
  MUST(KVX_INVALID, kvx_register(engine, &at, UINT64_MAX, 0, &region));
  OK(kvx_buffer_register(engine, buffer, KVX_REMOTE_WRITE, &region));
  OK(kvx_buffer_release(buffer));
  MUST(KVX_UNKNOWN_HANDLE, kvx_buffer_register(engine, buffer, 0, &region));

  kvx_peer peer = 0;
  MUST(KVX_INVALID, kvx_peer_add(engine, (const uint8_t *)"garbage", 7, &peer));
  MUST(KVX_INVALID, kvx_peer_add(engine, NULL, 7, &peer));
  says("null");
  OK(kvx_peer_myself(engine, &peer));
  const uint32_t first = 0, second = 1;
  const uint64_t zero = 0, len = 4096, far = 4097;
  kvx_spans ours = 0, theirs = 0;
  kvx_prepared prepared = 0;
  MUST(KVX_INVALID, kvx_spans_local(&region, 1, &first, NULL, &len, 1, &ours));
  MUST(KVX_INVALID, kvx_spans_local(&region, 1, &first, &zero, &len, (size_t)1 << 62, &ours));
  const uint64_t begin = (uint64_t)(uintptr_t)at, beyond = begin + 1;
  MUST(KVX_INVALID, kvx_spans_local_at(&region, 1, &beyond, &len, 1, &ours));
  says("no region holds 4096 bytes");
  MUST(KVX_INVALID, kvx_spans_local_at(&region, 1, NULL, &len, 1, &ours));
  MUST(KVX_INVALID, kvx_spans_remote_at(peer, &beyond, &len, 1, &theirs));
  OK(kvx_spans_remote_at(peer, &begin, &len, 1, &theirs));
  size_t count = 0;
  OK(kvx_spans_count(theirs, &count));
  CHECK(count == 1);
  OK(kvx_spans_release(theirs));
  MUST(KVX_UNKNOWN_HANDLE, kvx_spans_count(theirs, &count));
  OK(kvx_spans_local(&region, 1, &first, &zero, &len, 1, &ours));
  OK(kvx_spans_remote(peer, &first, &zero, &far, 1, &theirs));
  MUST(KVX_INVALID, kvx_prepare(KVX_WRITE, ours, theirs, &prepared));
  MUST(KVX_INVALID, kvx_prepare(KVX_WRITE, theirs, ours, &prepared));
  MUST(KVX_INVALID, kvx_prepare(7, ours, ours, &prepared));
  MUST(KVX_INVALID, kvx_prepare_selected(KVX_READ, ours, &second, theirs, &first, 1, &prepared));
  OK(kvx_spans_release(theirs));
  MUST(KVX_UNKNOWN_HANDLE, kvx_spans_release(theirs));
  OK(kvx_spans_remote(peer, &first, &zero, &len, 1, &theirs));
  OK(kvx_prepare(KVX_WRITE, ours, theirs, &prepared));
  kvx_transfer_report size;
  OK(kvx_prepared_size(prepared, &size));
  CHECK(size.bytes == len && size.runs == 1);
  kvx_operation operation = 0;
  OK(kvx_post(prepared, NULL, &operation));
  OK(kvx_operation_wait(operation, 0));
  MUST(KVX_INVALID, kvx_operation_peer(operation, &peer));
  OK(kvx_operation_release(operation));
  OK(kvx_peer_ready(peer, &operation));
  MUST(KVX_UNSUPPORTED, kvx_operation_cancel(operation));

  // Nobody is there: an error that names whom and why, in time.
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.ignore_environment = 1;
  options.deadline_ns = 300000000;
  kvx_engine hasty = 0;
  OK(kvx_engine_open(&options, &hasty));
  OK(kvx_peer_connect(hasty, "127.0.0.1:1", &operation));
  CHECK(kvx_operation_wait(operation, -1) < 0);
  says("127.0.0.1:1");
  CHECK(kvx_operation_poll(operation) < 0);

  // One that lets in who holds its metadata lets nobody in for an address.
  kvx_engine shy = 0;
  options.metadata_auth = 3;
  MUST(KVX_INVALID, kvx_engine_open(&options, &shy));
  says("metadata_auth");
  options.metadata_auth = 1;
  OK(kvx_engine_open(&options, &shy));
  char address[64] = {0};
  size_t room = sizeof address - 1;
  OK(kvx_engine_address(shy, address, &room));
  kvx_operation turned_down = 0;
  OK(kvx_peer_connect(hasty, address, &turned_down));
  MUST(KVX_HANDSHAKE, kvx_operation_wait(turned_down, -1));
  says("metadata");
  uint8_t blob[4096];
  room = sizeof blob;
  kvx_peer known = 0;
  OK(kvx_engine_metadata(shy, NULL, 0, blob, &room));
  OK(kvx_peer_add(hasty, blob, room, &known));
  OK(kvx_peer_ready(known, &turned_down));
  OK(kvx_operation_wait(turned_down, -1));
  OK(kvx_engine_close(shy));

  pid_t child = fork();
  if (child == 0) {
    int status = kvx_engine_close(engine) == KVX_FORKED && kvx_operation_poll(operation) == KVX_FORKED;
    _exit(status && strstr(kvx_error_message(), "forked") != NULL ? 0 : 1);
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);

  OK(kvx_engine_close(engine));
  MUST(KVX_SHUT_DOWN, kvx_post(prepared, NULL, &operation));
  says("shut down");
  OK(kvx_engine_close(hasty));
  return 0;
}
