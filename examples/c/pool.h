// What both sides of the example agree on: a small model's KV pool, and what to do about errors.
#ifndef POOL_H
#define POOL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kvx.h>

enum { LAYERS = 8, BLOCKS = 64, BLOCK_TOKENS = 16, HEADS = 4, HEAD_SIZE = 64, TOKENS = 200 };
enum { TOKEN_BYTES = HEADS * HEAD_SIZE * 2, BLOCK_BYTES = BLOCK_TOKENS * TOKEN_BYTES };
enum { POOL_BYTES = BLOCKS * BLOCK_BYTES, PROMPT_BLOCKS = (TOKENS + BLOCK_TOKENS - 1) / BLOCK_TOKENS };

#define ROOM 2026

// Ends the program where a call has failed.
#define TRY(call)                                                              \
  do {                                                                         \
    if ((call) != KVX_OK) {                                                    \
      fprintf(stderr, "%s: %s\n", #call, kvx_error_message());                 \
      exit(1);                                                                 \
    }                                                                          \
  } while (0)

// Waits for an operation, which has a deadline of its own.
static inline void finish(kvx_operation operation) {
  TRY(kvx_operation_wait(operation, -1));
  TRY(kvx_operation_release(operation));
}

// Memory for the keys and values of all layers, registered, and its layout told. Peers may not
// touch it: what they may write, grants say.
static inline kvx_pool make_pool(kvx_engine engine, unsigned char **memory) {
  void *address = NULL;
  kvx_buffer buffer = 0;
  kvx_region region = 0;
  TRY(kvx_buffer_allocate(2 * LAYERS * POOL_BYTES, &address, &buffer));
  TRY(kvx_buffer_register(engine, buffer, 0, &region));
  TRY(kvx_buffer_release(buffer));
  *memory = address;

  // K of layer 0, V of layer 0, K of layer 1, ...: one after the other in one region.
  uint32_t regions[2 * LAYERS] = {0};
  uint64_t offsets[2 * LAYERS];
  for (int i = 0; i < 2 * LAYERS; i++) offsets[i] = (uint64_t)i * POOL_BYTES;
  kvx_layout layout;
  memset(&layout, 0, sizeof layout);
  layout.size = sizeof layout;
  layout.attention = KVX_KEY_VALUE;
  layout.dtype = KVX_BF16;
  layout.layers = LAYERS;
  layout.block_tokens = BLOCK_TOKENS;
  layout.blocks = BLOCKS;
  layout.heads_count = layout.heads_total = HEADS;
  layout.head_size = HEAD_SIZE;
  layout.block_stride = BLOCK_BYTES;
  layout.token_stride = TOKEN_BYTES;
  layout.head_stride = HEAD_SIZE * 2;
  layout.pool_regions = regions;
  layout.pool_offsets = offsets;
  layout.pool_count = 2 * LAYERS;
  kvx_pool pool = 0;
  TRY(kvx_pool_create(&layout, &region, 1, &pool));
  return pool;
}

// What stands in a byte of the prompt's cache; both sides can work it out.
static inline unsigned char content(int pool, int token, int byte) {
  return (unsigned char)(pool * 31 + token * 7 + byte + 1);
}

#endif
