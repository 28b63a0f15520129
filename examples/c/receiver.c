// The decode side: grants blocks to the sender whose address is given, waits for the layers as they
// come, and looks at every byte.
//
//   cc receiver.c $(pkg-config --cflags --libs kvx) -o receiver && ./receiver IP:PORT
#include "pool.h"

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s IP:PORT\n", argv[0]);
    return 2;
  }
  kvx_engine engine = 0;
  TRY(kvx_engine_open(NULL, &engine));
  unsigned char *memory = NULL;
  kvx_pool pool = make_pool(engine, &memory);

  kvx_operation connected = 0;
  kvx_peer peer = 0;
  TRY(kvx_peer_connect(engine, argv[1], &connected));
  TRY(kvx_operation_wait(connected, -1));
  TRY(kvx_operation_peer(connected, &peer));
  TRY(kvx_operation_release(connected));

  uint32_t blocks[PROMPT_BLOCKS];  // whatever is free here
  for (uint32_t i = 0; i < PROMPT_BLOCKS; i++) blocks[i] = 2 * i + 1;
  const kvx_session_key key = {ROOM, 0, 0, 0};
  kvx_receiver receiver = 0;
  TRY(kvx_receiver_open(peer, &key, pool, TOKENS, blocks, PROMPT_BLOCKS, 0, &receiver));
  for (uint32_t layer = 0; layer < LAYERS; layer++) {
    kvx_operation arrived = 0;
    TRY(kvx_receiver_layer(receiver, layer, &arrived));
    finish(arrived);
  }
  kvx_operation done = 0;
  char payload[64] = "";
  size_t length = sizeof payload - 1;
  TRY(kvx_receiver_done(receiver, &done));
  TRY(kvx_operation_wait(done, -1));
  TRY(kvx_operation_payload(done, (uint8_t *)payload, &length));
  TRY(kvx_operation_release(done));
  TRY(kvx_receiver_close(receiver, NULL));

  for (int pool_index = 0; pool_index < 2 * LAYERS; pool_index++) {
    for (int token = 0; token < TOKENS; token++) {
      const unsigned char *slot = memory + (size_t)pool_index * POOL_BYTES +
                                  blocks[token / BLOCK_TOKENS] * (size_t)BLOCK_BYTES +
                                  token % BLOCK_TOKENS * TOKEN_BYTES;
      for (int byte = 0; byte < TOKEN_BYTES; byte++) {
        if (slot[byte] != content(pool_index, token, byte)) {
          fprintf(stderr, "pool %d, token %d, byte %d differs\n", pool_index, token, byte);
          return 1;
        }
      }
    }
  }
  printf("%d layers of %d tokens, every byte as it was sent; %s\n", LAYERS, TOKENS, payload);
  TRY(kvx_pool_release(pool));
  TRY(kvx_engine_close(engine));
  return 0;
}
