// Two engines, of which one knows the other's address alone: published regions, and READs that tell.
#include "check.h"

#define LEN 4096

static kvx_peer peer_of(kvx_operation operation) {
  kvx_peer peer = 0;
  MUST(KVX_OK, kvx_operation_wait(operation, -1));
  OK(kvx_operation_peer(operation, &peer));
  OK(kvx_operation_release(operation));
  return peer;
}

// What the peer publishes now.
static kvx_peer published(kvx_peer peer) {
  kvx_operation operation = 0;
  OK(kvx_peer_published(peer, &operation));
  return peer_of(operation);
}

static size_t count_of(kvx_peer peer) {
  size_t count = 99;
  OK(kvx_peer_region_count(peer, &count));
  return count;
}

int main(void) {
  kvx_engine a = open_engine("c-publish-a"), b = open_engine("c-publish-b");
  unsigned char *ours = calloc(1, LEN), *theirs = malloc(LEN), *more = malloc(LEN);
  CHECK(ours != NULL && theirs != NULL && more != NULL);
  for (size_t i = 0; i < LEN; i++) theirs[i] = (unsigned char)(i * 7 + 1);
  kvx_region sink = 0, first = 0, second = 0;
  OK(kvx_register(a, ours, LEN, 0, &sink));
  OK(kvx_register(b, theirs, LEN, KVX_REMOTE_READ, &first));
  OK(kvx_register(b, more, LEN, KVX_REMOTE_READ | KVX_REMOTE_WRITE, &second));

  char address[64];
  size_t len = sizeof address - 1;
  OK(kvx_engine_address(b, address, &len));
  address[len] = 0;
  kvx_operation operation = 0;
  OK(kvx_peer_connect(a, address, &operation));
  kvx_peer connected = peer_of(operation);
  CHECK(count_of(connected) == 0);
  kvx_peer none = published(connected);
  CHECK(count_of(none) == 0);

  OK(kvx_region_publish(first));
  OK(kvx_region_publish(second));
  OK(kvx_region_publish(second));
  kvx_peer peer = published(connected);
  CHECK(count_of(peer) == 2);
  kvx_remote_region described;
  OK(kvx_peer_region(peer, 0, &described));
  CHECK(described.address == (uint64_t)(uintptr_t)theirs && described.len == LEN);
  CHECK(described.rights == KVX_REMOTE_READ && described.device == -1);

  // A READ by address, of which its owner hears once the data is here.
  uint64_t here = (uint64_t)(uintptr_t)ours, there = (uint64_t)(uintptr_t)theirs, lens = LEN;
  kvx_spans local = 0, remote = 0;
  OK(kvx_spans_local_at(&sink, 1, &here, &lens, 1, &local));
  OK(kvx_spans_remote_at(peer, &there, &lens, 1, &remote));
  kvx_prepared read = 0;
  OK(kvx_prepare(KVX_READ, local, remote, &read));
  kvx_post_options options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.notification = (const uint8_t *)"read";
  options.notification_len = 4;
  kvx_operation reading = 0;
  OK(kvx_post(read, &options, &reading));
  kvx_notification notification = 0;
  OK(kvx_notification_take(b, -1, &notification, &len));
  CHECK(len == 4);
  char text[5] = "";
  OK(kvx_notification_bytes(notification, (uint8_t *)text, &len));
  CHECK(strcmp(text, "read") == 0);
  OK(kvx_notification_release(notification));
  CHECK(memcmp(ours, theirs, LEN) == 0);
  OK(kvx_operation_wait(reading, -1));
  OK(kvx_operation_release(reading));

  // What is gone is told no more.
  OK(kvx_region_deregister(first));
  MUST(KVX_UNKNOWN_HANDLE, kvx_region_publish(first));
  kvx_peer left = published(connected);
  CHECK(count_of(left) == 1);
  OK(kvx_peer_region(left, 0, &described));
  CHECK(described.address == (uint64_t)(uintptr_t)more);

  kvx_peer myself = 0;
  OK(kvx_peer_myself(b, &myself));
  kvx_peer own = published(myself);
  CHECK(count_of(own) == 1);
  MUST(KVX_UNKNOWN_HANDLE, kvx_peer_published(first, &operation));
  MUST(KVX_INVALID, kvx_peer_published(myself, NULL));

  OK(kvx_engine_close(b));
  OK(kvx_peer_published(connected, &operation));
  CHECK(kvx_operation_wait(operation, -1) < 0);
  OK(kvx_operation_release(operation));
  OK(kvx_engine_close(a));
  free(ours);
  free(theirs);
  free(more);
  return 0;
}
