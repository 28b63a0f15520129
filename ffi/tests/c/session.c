// A session: the blocks of one pool into those of another, layer by layer.
#include "check.h"

#define LAYERS 3
#define BLOCKS 8
#define BLOCK_BYTES (16 * 2 * 8 * 2)
#define POOL_BYTES (BLOCKS * BLOCK_BYTES)

static kvx_pool pool_in(kvx_engine engine, unsigned char **memory) {
  uint32_t regions[2 * LAYERS];
  uint64_t offsets[2 * LAYERS];
  for (uint32_t i = 0; i < 2 * LAYERS; i++) {
    regions[i] = 0;
    offsets[i] = (uint64_t)i * POOL_BYTES;
  }
  void *at = NULL;
  kvx_region region = 0;
  kvx_buffer buffer = 0;
  OK(kvx_buffer_allocate(2 * LAYERS * POOL_BYTES, &at, &buffer));
  OK(kvx_buffer_register(engine, buffer, 0, &region));
  *memory = at;
  kvx_layout layout;
  memset(&layout, 0, sizeof layout);
  layout.size = sizeof layout;
  layout.attention = KVX_KEY_VALUE;
  layout.dtype = KVX_BF16;
  layout.layers = LAYERS;
  layout.block_tokens = 16;
  layout.blocks = BLOCKS;
  layout.heads_count = layout.heads_total = 2;
  layout.head_size = 8;
  layout.block_stride = BLOCK_BYTES;
  layout.token_stride = 2 * 8 * 2;
  layout.head_stride = 8 * 2;
  layout.pool_regions = regions;
  layout.pool_offsets = offsets;
  layout.pool_count = 2 * LAYERS;
  kvx_pool pool = 0;
  OK(kvx_pool_create(&layout, &region, 1, &pool));
  layout.dtype = 99;
  kvx_pool none = 0;
  MUST(KVX_INVALID, kvx_pool_create(&layout, &region, 1, &none));
  return pool;
}

static void wait_for(kvx_operation operation) { OK(kvx_operation_wait(operation, -1)); }

int main(void) {
  kvx_engine prefill = open_engine("c-session-prefill"), decode = open_engine("c-session-decode");
  unsigned char *from = NULL, *to = NULL;
  kvx_pool source = pool_in(prefill, &from), target = pool_in(decode, &to);
  for (size_t i = 0; i < 2 * LAYERS * POOL_BYTES; i++) from[i] = (unsigned char)(i * 13 + i / 512 + 1);

  char address[64] = "";
  size_t len = sizeof address - 1;
  OK(kvx_engine_address(prefill, address, &len));
  kvx_operation operation = 0;
  OK(kvx_peer_connect(decode, address, &operation));
  wait_for(operation);
  kvx_peer peer = 0;
  OK(kvx_operation_peer(operation, &peer));
  OK(kvx_operation_release(operation));

  // Where a rank is, the directory tells.
  const kvx_rank rank = {"prefill", 0, 1, 2};
  OK(kvx_rank_serve(prefill, &rank));
  OK(kvx_rank_find(peer, &rank, 0, &operation));
  wait_for(operation);
  char found[64] = "";
  uint8_t id[16], expected_id[16];
  len = sizeof found - 1;
  OK(kvx_operation_rank(operation, found, &len, &id));
  OK(kvx_engine_identity(prefill, &expected_id, NULL));
  CHECK(strcmp(found, address) == 0 && memcmp(id, expected_id, 16) == 0);
  OK(kvx_operation_release(operation));
  const kvx_rank nobody = {"prefill", 0, 1, 3};
  OK(kvx_rank_find(peer, &nobody, 0, &operation));
  wait_for(operation);
  MUST(KVX_PENDING, kvx_operation_rank(operation, found, &len, NULL));
  OK(kvx_operation_release(operation));
  OK(kvx_rank_register(peer, &nobody));

  // Forty tokens: two and a half blocks.
  const kvx_session_key key = {7, 0, 0, 0};
  const uint32_t ours[] = {6, 1, 4}, theirs[] = {0, 5, 2};
  kvx_receiver receiver = 0;
  kvx_sender sender = 0;
  OK(kvx_receiver_open(peer, &key, target, 40, theirs, 3, 0, &receiver));
  OK(kvx_sender_open(prefill, &key, source, 0, &sender));
  MUST(KVX_INVALID, (kvx_sender_open(prefill, &key, source, 0, &sender)));
  OK(kvx_sender_granted(sender, &operation));
  wait_for(operation);
  kvx_granted granted;
  OK(kvx_operation_granted(operation, &granted));
  CHECK(granted.tokens == 40 && granted.first_layer == 0 && granted.layers == LAYERS);
  OK(kvx_operation_release(operation));
  for (uint32_t layer = 0; layer < LAYERS; layer++) {
    kvx_operation arrived = 0;
    OK(kvx_receiver_layer(receiver, layer, &arrived));
    OK(kvx_sender_write(sender, layer, 1, ours, 3, &operation));
    wait_for(operation);
    wait_for(arrived);
    OK(kvx_operation_release(operation));
    OK(kvx_operation_release(arrived));
    uint32_t layers = 0;
    OK(kvx_receiver_arrived(receiver, &layers));
    CHECK(layers == layer + 1);
  }
  kvx_operation done = 0;
  OK(kvx_receiver_done(receiver, &done));
  OK(kvx_sender_finish(sender, (const uint8_t *)"first token", 11, &operation));
  MUST(KVX_UNKNOWN_HANDLE, kvx_sender_abort(sender, NULL));
  wait_for(operation);
  kvx_transfer_report report;
  OK(kvx_operation_report(operation, &report));
  CHECK(report.bytes == 40 * 2 * 8 * 2 * 2 * LAYERS);
  wait_for(done);
  char payload[16] = "";
  len = sizeof payload;
  OK(kvx_operation_payload(done, (uint8_t *)payload, &len));
  CHECK(len == 11 && strcmp(payload, "first token") == 0);
  OK(kvx_receiver_close(receiver, NULL));
  for (size_t pool = 0; pool < 2 * LAYERS; pool++) {
    for (size_t block = 0; block < BLOCKS; block++) {
      size_t granted_at = 3;
      for (size_t i = 0; i < 3; i++) {
        if (theirs[i] == block) granted_at = i;
      }
      // Of the third block the first half.
      size_t bytes = granted_at == 3 ? 0 : granted_at == 2 ? BLOCK_BYTES / 2 : BLOCK_BYTES;
      const unsigned char *found = to + pool * POOL_BYTES + block * BLOCK_BYTES;
      for (size_t byte = 0; byte < BLOCK_BYTES; byte++) {
        unsigned char expected = 0;
        if (byte < bytes) expected = from[pool * POOL_BYTES + ours[granted_at] * BLOCK_BYTES + byte];
        CHECK(found[byte] == expected);
      }
    }
  }

  // One that is given up tells the other side why.
  const kvx_session_key other = {8, 0, 0, 0};
  OK(kvx_receiver_open(peer, &other, target, 16, theirs, 1, 0, &receiver));
  OK(kvx_sender_open(prefill, &other, source, 0, &sender));
  OK(kvx_sender_granted(sender, &operation));
  wait_for(operation);
  OK(kvx_receiver_done(receiver, &done));
  OK(kvx_sender_abort(sender, "the request was withdrawn"));
  MUST(KVX_ABORTED, kvx_operation_wait(done, -1));
  CHECK(strstr(kvx_error_message(), "withdrawn") != NULL);
  OK(kvx_receiver_close(receiver, NULL));

  OK(kvx_pool_release(source));
  OK(kvx_pool_release(target));
  OK(kvx_engine_close(prefill));
  OK(kvx_engine_close(decode));
  return 0;
}
