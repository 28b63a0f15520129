// Two engines: WRITE and READ of spans, notifications, status words, the event descriptor.
#include <poll.h>
#include <unistd.h>

#include "check.h"

#ifdef SMALL
#define SPANS 64
#else
#define SPANS 4096
#endif
#define LEN 1000
#define CELL 1024

static void wait_for(kvx_operation operation) {
  const int32_t *word = NULL;
  OK(kvx_operation_status_word(operation, &word));
  OK(kvx_operation_wait(operation, -1));
  CHECK(__atomic_load_n(word, __ATOMIC_ACQUIRE) == KVX_OK);
  OK(kvx_operation_poll(operation));
}

int main(void) {
  kvx_engine a = open_engine("c-moves-a"), b = open_engine("c-moves-b");
  void *at = NULL;
  kvx_region source = 0, target = 0;
  kvx_buffer buffer = 0;
  OK(kvx_buffer_allocate(SPANS * CELL, &at, &buffer));
  OK(kvx_buffer_register(a, buffer, 0, &source));
  OK(kvx_buffer_release(buffer));
  unsigned char *from = at;
  unsigned char *to = calloc(SPANS, CELL);
  CHECK(to != NULL);
  OK(kvx_register(b, to, SPANS * CELL, KVX_REMOTE_READ | KVX_REMOTE_WRITE, &target));
  for (size_t i = 0; i < (size_t)SPANS * CELL; i++) from[i] = (unsigned char)(i * 7 + i / CELL + 1);

  // The blob, as two calls: how long, and then it.
  size_t len = 0;
  MUST(KVX_INVALID, kvx_engine_metadata(b, &target, 1, NULL, &len));
  unsigned char *blob = malloc(len);
  OK(kvx_engine_metadata(b, &target, 1, blob, &len));
  kvx_peer peer = 0;
  OK(kvx_peer_add(a, blob, len, &peer));
  free(blob);
  size_t count = 0;
  OK(kvx_peer_region_count(peer, &count));
  CHECK(count == 1);
  kvx_remote_region described;
  OK(kvx_peer_region(peer, 0, &described));
  CHECK(described.address == (uint64_t)(uintptr_t)to && described.len == SPANS * CELL);
  CHECK(described.rights == (KVX_REMOTE_READ | KVX_REMOTE_WRITE) && described.device == -1);

  // Every span to another cell.
  uint32_t *region = calloc(SPANS, sizeof *region), *forth = malloc(SPANS * sizeof *forth);
  uint64_t *offsets = malloc(SPANS * sizeof *offsets), *lens = malloc(SPANS * sizeof *lens);
  for (uint32_t i = 0; i < SPANS; i++) {
    offsets[i] = (uint64_t)i * CELL;
    lens[i] = LEN;
    forth[i] = (i * 5 + 3) % SPANS;
  }
  uint32_t *straight = malloc(SPANS * sizeof *straight);
  for (uint32_t i = 0; i < SPANS; i++) straight[i] = i;
  kvx_spans ours = 0, theirs = 0;
  OK(kvx_spans_local(&source, 1, region, offsets, lens, SPANS, &ours));
  OK(kvx_spans_remote(peer, region, offsets, lens, SPANS, &theirs));
  kvx_prepared write = 0;
  OK(kvx_prepare_selected(KVX_WRITE, ours, straight, theirs, forth, SPANS, &write));
  // What was prepared stands by itself.
  memset(forth, 0xff, SPANS * sizeof *forth);

  int events = -1;
  OK(kvx_engine_event_descriptor(b, &events));
  kvx_post_options options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.notification = (const uint8_t *)"written";
  options.notification_len = 7;
  kvx_operation operation = 0;
  OK(kvx_post(write, &options, &operation));
  wait_for(operation);
  kvx_transfer_report report;
  OK(kvx_operation_report(operation, &report));
  CHECK(report.bytes == (uint64_t)SPANS * LEN && report.runs == SPANS);
  OK(kvx_operation_release(operation));
  for (uint32_t i = 0; i < SPANS; i++) {
    uint32_t cell = (i * 5 + 3) % SPANS;
    CHECK(memcmp(to + (size_t)cell * CELL, from + (size_t)i * CELL, LEN) == 0);
    for (size_t byte = LEN; byte < CELL; byte++) CHECK(to[(size_t)cell * CELL + byte] == 0);
  }

  // The other side hears of it without a call.
  struct pollfd watched = {.fd = events, .events = POLLIN, .revents = 0};
  CHECK(poll(&watched, 1, 10000) == 1);
  uint64_t rung = 0;
  CHECK(read(events, &rung, sizeof rung) == sizeof rung);
  kvx_notification notification = 0;
  size_t said = 0;
  const size_t *waiting = NULL;
  OK(kvx_notification_count_word(b, &waiting));
  CHECK(*waiting == 1);
  OK(kvx_notification_take(b, 0, &notification, &said));
  CHECK(*waiting == 0);
  char text[8] = "";
  CHECK(said == 7);
  OK(kvx_notification_bytes(notification, (uint8_t *)text, &said));
  CHECK(strcmp(text, "written") == 0);
  uint8_t id[16], sender[16];
  OK(kvx_engine_identity(a, &id, NULL));
  OK(kvx_notification_engine(notification, &sender));
  CHECK(memcmp(id, sender, 16) == 0);
  OK(kvx_notification_release(notification));
  MUST(KVX_PENDING, kvx_notification_take(b, 0, &notification, &said));

  // And back, by address, each cell to where it is in the other memory.
  kvx_prepared read_back = 0;
  OK(kvx_spans_release(ours));
  OK(kvx_spans_release(theirs));
  for (size_t i = 0; i < SPANS; i++) offsets[i] = (uint64_t)(uintptr_t)(from + i * CELL);
  OK(kvx_spans_local_at(&source, 1, offsets, lens, SPANS, &ours));
  for (size_t i = 0; i < SPANS; i++) offsets[i] = (uint64_t)(uintptr_t)(to + i * CELL);
  OK(kvx_spans_remote_at(peer, offsets, lens, SPANS, &theirs));
  OK(kvx_prepare(KVX_READ, ours, theirs, &read_back));
  memset(from, 0, (size_t)SPANS * CELL);
  OK(kvx_post(read_back, NULL, &operation));
  wait_for(operation);
  OK(kvx_operation_release(operation));
  for (size_t i = 0; i < SPANS; i++) CHECK(memcmp(to + i * CELL, from + i * CELL, LEN) == 0);

  // A region that is gone is an error, not a crash.
  OK(kvx_region_deregister(target));
  free(to);
  kvx_operation late = 0;
  kvx_status posted = kvx_post(write, NULL, &late);
  if (posted == KVX_OK) posted = kvx_operation_wait(late, -1);
  CHECK(posted == KVX_REFUSED);
  CHECK(strstr(kvx_error_message(), "c-moves-b") != NULL);

  OK(kvx_spans_release(ours));
  OK(kvx_spans_release(theirs));
  OK(kvx_prepared_release(write));
  OK(kvx_prepared_release(read_back));
  OK(kvx_peer_remove(peer));
  OK(kvx_engine_close(a));
  OK(kvx_engine_close(b));
  free(region);
  free(forth);
  free(straight);
  free(offsets);
  free(lens);
  return 0;
}
