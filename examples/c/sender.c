// The prefill side: says where it is, and writes a prompt's KV cache layer by layer into the blocks
// that the receiver grants.
//
//   cc sender.c $(pkg-config --cflags --libs kvx) -o sender && ./sender
#include "pool.h"

int main(void) {
  kvx_engine engine = 0;
  TRY(kvx_engine_open(NULL, &engine));  // as the environment says: KVX_BIND, KVX_AUTH_KEY_FILE, ...
  unsigned char *memory = NULL;
  kvx_pool pool = make_pool(engine, &memory);

  char address[256] = "";
  size_t length = sizeof address - 1;
  TRY(kvx_engine_address(engine, address, &length));
  printf("%s\n", address);
  fflush(stdout);

  const kvx_session_key key = {ROOM, 0, 0, 0};
  kvx_sender sender = 0;
  kvx_operation granted = 0;
  TRY(kvx_sender_open(engine, &key, pool, 60000000000, &sender));
  TRY(kvx_sender_granted(sender, &granted));
  finish(granted);

  uint32_t blocks[PROMPT_BLOCKS];  // wherever the prompt's blocks lie here
  for (uint32_t i = 0; i < PROMPT_BLOCKS; i++) blocks[i] = BLOCKS - 1 - i * 3;
  kvx_operation written[LAYERS];
  for (int layer = 0; layer < LAYERS; layer++) {
    // Prefill computes the layer ...
    for (int pool_index = 2 * layer; pool_index < 2 * layer + 2; pool_index++) {
      for (int token = 0; token < TOKENS; token++) {
        unsigned char *slot = memory + (size_t)pool_index * POOL_BYTES +
                              blocks[token / BLOCK_TOKENS] * (size_t)BLOCK_BYTES +
                              token % BLOCK_TOKENS * TOKEN_BYTES;
        for (int byte = 0; byte < TOKEN_BYTES; byte++) slot[byte] = content(pool_index, token, byte);
      }
    }
    // ... which is on its way while the next is computed.
    TRY(kvx_sender_write(sender, layer, 1, blocks, PROMPT_BLOCKS, &written[layer]));
  }
  for (int layer = 0; layer < LAYERS; layer++) finish(written[layer]);
  kvx_operation finished = 0;
  TRY(kvx_sender_finish(sender, (const uint8_t *)"first token: 42", 15, &finished));
  finish(finished);
  TRY(kvx_pool_release(pool));
  TRY(kvx_engine_close(engine));
  return 0;
}
