/*
 * The C interface of kvx. Made from the sources in ffi/src by its test `header`; not to be
 * changed by hand.
 *
 * Every function returns a kvx_status, but kvx_error_message() and kvx_version(); results go
 * through pointers, which are written only on success. What went wrong, kvx_error_message()
 * tells. Handles are numbers that are never used twice: one that was released or made up is
 * KVX_UNKNOWN_HANDLE. What a pointer argument refers to is copied before the function returns.
 * Any thread may call any function at any time; in a forked child each is KVX_FORKED.
 */


#ifndef KVX_H
#define KVX_H

#include <stddef.h>
#include <stdint.h>

// Peers that hold the region key may read the region.
#define KVX_REMOTE_READ 1

// Peers that hold the region key may write it.
#define KVX_REMOTE_WRITE 2

// Keys and values, a window of heads each.
#define KVX_KEY_VALUE 1

// One latent vector a token, the same on every tensor-parallel rank (MLA).
#define KVX_LATENT 2

// 8-bit float, either kind.
#define KVX_FP8 1

// bfloat16.
#define KVX_BF16 2

// IEEE half.
#define KVX_FP16 3

// IEEE single.
#define KVX_FP32 4

// 8-bit integer.
#define KVX_INT8 5

// From own memory into the peer's.
#define KVX_WRITE 0

// From the peer's memory into own.
#define KVX_READ 1

// What a call came to. Negative: it failed, and kvx_error_message() tells more.
typedef enum {
  // Done.
  KVX_OK = 0,
  // Still under way; or nothing is there yet.
  KVX_PENDING = 1,
  // Arguments that cannot be honoured.
  KVX_INVALID = -1,
  // No handle, or one of something that was released.
  KVX_UNKNOWN_HANDLE = -2,
  // The process was forked after the library was first used.
  KVX_FORKED = -3,
  // The engine has been shut down.
  KVX_SHUT_DOWN = -4,
  // Nothing moved for the time that was allowed, or the total time was used up.
  KVX_DEADLINE = -5,
  // No road to the peer came back in time.
  KVX_PEER_LOST = -6,
  // The peer shut down.
  KVX_PEER_CLOSED = -7,
  // The peer was restarted: add it again to reach its new life.
  KVX_PEER_RESTARTED = -8,
  // The peer removed this engine.
  KVX_PEER_RESET = -9,
  // The peer was removed here.
  KVX_PEER_REMOVED = -10,
  // The peer broke the protocol.
  KVX_PEER_MISBEHAVED = -11,
  // The owner of the memory refused the access.
  KVX_REFUSED = -12,
  // The handshake failed: another auth key or version, or this engine itself.
  KVX_HANDSHAKE = -13,
  // Cancelled here, and confirmed: nothing of it lands any more.
  KVX_CANCELLED = -14,
  // Cancelled here, and not confirmed by its deadline, after which nothing lands either.
  KVX_CANCELLED_UNFENCED = -15,
  // The session was aborted.
  KVX_ABORTED = -16,
  // A region that it uses was deregistered.
  KVX_REGION_CLOSED = -17,
  // A bound that protects memory is reached; later calls may pass.
  KVX_BUSY = -18,
  // Not available here.
  KVX_UNSUPPORTED = -19,
  // Memory could not be had.
  KVX_OUT_OF_MEMORY = -20,
  // Whether a notification was delivered cannot be known.
  KVX_DELIVERY_UNKNOWN = -21,
  // All lanes to the peer failed, and no transport is left.
  KVX_NO_TRANSPORT = -22,
  // A system call failed.
  KVX_IO = -23,
  // A defect of the library; nothing else is known of the call's outcome.
  KVX_PANICKED = -24,
  // Something that has no code of its own; the message tells.
  KVX_FAILED = -25,
} kvx_status;

// An engine. 0 is none.
typedef uint64_t kvx_engine;

// A rank of an instance.
typedef struct {
  // The instance's name, at most 255 bytes; null is the empty one.
  const char *instance;
  // Data-parallel rank.
  uint32_t dp;
  // Pipeline-parallel rank.
  uint32_t pp;
  // Tensor-parallel rank.
  uint32_t tp;
} kvx_rank;

// A peer, in one of its lives. 0 is none.
typedef uint64_t kvx_peer;

// An operation under way, or ended. 0 is none.
typedef uint64_t kvx_operation;

// Options of an engine. Zero it, set `size` and what shall differ from the default. A value set
// here wins over the environment, the environment (`KVX_` and the field's name in upper case)
// over the default.
typedef struct {
  // sizeof(kvx_engine_options).
  size_t size;
  // The engine's lasting name, from which its id is made. Default: one that is made up.
  const char *name;
  // Where to listen: "ip" or "ip:port". Default: "127.0.0.1:0", any free port on loopback.
  const char *bind;
  // What peers are told to reach it at, best first: a comma-separated list of "ip", "ip:port"
  // or interface names. Default: what the bound address suggests.
  const char *advertise;
  // Which transports may be used, best first: a comma-separated list of "shm" (memory of a process
  // on the same host) and "tcp". Default: "shm,tcp".
  const char *transports;
  // A file of mode 0600 with the auth key that all engines of a deployment share; required off
  // loopback, unless `metadata_auth` or `insecure` is said.
  const char *auth_key_file;
  // What is logged, such as "kvx=info", the default.
  const char *log;
  // An operation that has not moved for so many nanoseconds fails. Default: 10 s.
  uint64_t deadline_ns;
  // One that is not done after so many fails too. Default: no such bound.
  uint64_t total_deadline_ns;
  // Bytes kept for a peer at most. Default: 256 MiB.
  uint64_t peer_memory;
  // Bytes of notifications that a peer may send before they are taken. Default: 32 MiB.
  uint64_t notification_window;
  // Bulk connections to a peer. Default: what the transport likes best.
  uint16_t lanes;
  // Threads that move bytes. Default: the smaller of 4 and the cores.
  uint16_t io_threads;
  // Not 0: anybody may connect who reaches the port, without a key; but see `metadata_auth`.
  uint8_t insecure;
  // Not 0: the environment is not asked.
  uint8_t ignore_environment;
  // 1: whoever holds this engine's metadata may connect, and nobody else but those who hold the
  // key of `auth_key_file`, if that is set. The metadata then carries a secret. 2: not so, also
  // where the environment says it.
  uint8_t metadata_auth;
} kvx_engine_options;

// Memory that the library allocated. 0 is none.
typedef uint64_t kvx_buffer;

// A registered region. 0 is none.
typedef uint64_t kvx_region;

// A notification that was taken. 0 is none.
typedef uint64_t kvx_notification;

// What a transfer that is done has moved.
typedef struct {
  // Bytes.
  uint64_t bytes;
  // Runs that they moved in, after merging.
  uint64_t runs;
} kvx_transfer_report;

// A region of a peer, as its owner describes it.
typedef struct {
  // The address under which its owner knows the first byte.
  uint64_t address;
  // Length in bytes.
  uint64_t len;
  // What we may do with it: KVX_REMOTE_READ, KVX_REMOTE_WRITE.
  uint32_t rights;
  // -1 for host memory, else the ordinal of the CUDA device.
  int32_t device;
} kvx_remote_region;

// How a worker rank's KV pool lies in memory. Byte i of head h (of this rank's window), token slot
// t of block b, of pool p is at `pool_offsets[p] + b * block_stride + t * token_stride +
// h * head_stride + i` in region `pool_regions[p]` of the regions beside the layout.
typedef struct {
  // sizeof(kvx_layout).
  size_t size;
  // KVX_KEY_VALUE or KVX_LATENT.
  uint32_t attention;
  // What an element is: KVX_FP8 and so on.
  uint32_t dtype;
  // The first layer held here, counted in the whole model.
  uint32_t first_layer;
  // The number of layers held here.
  uint32_t layers;
  // Tokens in a block.
  uint32_t block_tokens;
  // Blocks in each pool.
  uint32_t blocks;
  // The first KV head held here; 0 for latent.
  uint32_t heads_first;
  // The number of heads held here; 1 for latent.
  uint32_t heads_count;
  // The KV heads of the whole model; 1 for latent.
  uint32_t heads_total;
  // Elements of one head's K (or V) of one token; of the latent vector.
  uint32_t head_size;
  // Bytes from one block to the next within a pool.
  uint64_t block_stride;
  // Bytes from one token slot to the next within a block.
  uint64_t token_stride;
  // Bytes from one head to the next.
  uint64_t head_stride;
  // Where each pool begins, in layer order: for keys and values two a layer (K, then V), for
  // latent one.
  const uint32_t *pool_regions;
  // The offset of block 0 in that region.
  const uint64_t *pool_offsets;
  // The number of pools.
  size_t pool_count;
} kvx_layout;

// The KV pool of a worker rank. 0 is none.
typedef uint64_t kvx_pool;

// Which session of which request.
typedef struct {
  // The request.
  uint64_t room;
  // Counts retries of the same room, from 0.
  uint32_t attempt;
  // Rank of the sender in its instance.
  uint32_t sender_rank;
  // Rank of the receiver in its instance.
  uint32_t receiver_rank;
} kvx_session_key;

// The prefill side of one session. 0 is none.
typedef uint64_t kvx_sender;

// The decode side of one session. 0 is none.
typedef uint64_t kvx_receiver;

// What a receiver has granted.
typedef struct {
  // The receiver's tokens; those are sent.
  uint32_t tokens;
  // The first layer that both sides hold, counted in the whole model.
  uint32_t first_layer;
  // Their number.
  uint32_t layers;
} kvx_granted;

// A list of spans. 0 is none.
typedef uint64_t kvx_spans;

// A transfer that is ready to be posted. 0 is none.
typedef uint64_t kvx_prepared;

// Options of a post. Zero it, set `size` and what shall differ from the default.
typedef struct {
  // sizeof(kvx_post_options).
  size_t size;
  // Bytes that the peer's user is told, or null. With KVX_WRITE, once all data is in the peer's
  // memory; the operation ends when they are delivered too. With KVX_READ, once all data is in own
  // memory; the operation ends then, and the engine tells them by itself: at most once, and not if
  // the READ failed or was cancelled.
  const uint8_t *notification;
  // Their number.
  size_t notification_len;
  // Fails when nothing has moved for so many nanoseconds. Default: the engine's.
  uint64_t deadline_ns;
  // Fails when it is not done after so many. Default: the engine's.
  uint64_t total_deadline_ns;
} kvx_post_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Enters an engine into its own directory as `rank`.
//
// # Safety
// `rank` points to a rank whose name is null or ends with a zero.
kvx_status kvx_rank_serve(kvx_engine engine, const kvx_rank *rank);

// Enters the engine that knows this peer into the peer's directory as `rank`, for as long as the
// two are connected.
//
// # Safety
// `rank` points to a rank whose name is null or ends with a zero.
kvx_status kvx_rank_register(kvx_peer peer, const kvx_rank *rank);

// Asks the peer's directory where `rank` is; it waits up to `wait_ns` (600 s at most) for the rank
// to appear. When the operation has ended, kvx_operation_rank() has the answer.
//
// # Safety
// `rank` points to a rank whose name is null or ends with a zero, `operation` to room for a handle.
kvx_status kvx_rank_find(kvx_peer peer,
                         const kvx_rank *rank,
                         uint64_t wait_ns,
                         kvx_operation *operation);

// Where the rank is that was asked for: its addresses, "ip:port" with commas between them, for
// kvx_peer_connect(), as text without a final zero; and its engine's id, unless `id` is null.
// KVX_PENDING if it did not appear in time.
//
// # Safety
// `len` points to the room that `buffer` has, and there its length is told; `id` is null or points
// to room for 16 bytes.
kvx_status kvx_operation_rank(kvx_operation operation,
                              char *buffer,
                              size_t *len,
                              uint8_t (*id)[16]);

// Opens an engine: binds its port and starts its threads. Without options (null) it is as the
// environment says.
//
// # Safety
// `options` is null or points to options whose text ends with a zero each; `engine` points to room
// for a handle.
kvx_status kvx_engine_open(const kvx_engine_options *options, kvx_engine *engine);

// Ends an engine: peers are told, everything outstanding fails with KVX_SHUT_DOWN, and when this
// returns no byte lands in its memory any more. Blocks for half a second at most. What was made of
// it keeps its handles.
kvx_status kvx_engine_close(kvx_engine engine);

// The engine's lasting id, made from its name, and its present life: 16 bytes each; either may be
// null.
//
// # Safety
// `id` and `incarnation` are null or point to room for 16 bytes.
kvx_status kvx_engine_identity(kvx_engine engine, uint8_t (*id)[16], uint8_t (*incarnation)[16]);

// The address that the engine listens on, "ip:port", as text without a final zero.
//
// # Safety
// `len` points to the room that `buffer` has; there its length is told.
kvx_status kvx_engine_address(kvx_engine engine, char *buffer, size_t *len);

// A descriptor (eventfd(2)) that is readable once an operation of the engine has ended, or a
// notification has come, since it was last read: read eight bytes from it before looking at what
// has happened. Notifications are told again only after kvx_notification_take() has found none.
//
// It belongs to the engine: do not close it. The engine may close it as soon as it is closed
// itself: stop watching it before, or watch a duplicate (dup(2)), which is readable then.
//
// # Safety
// `descriptor` points to room for an int.
kvx_status kvx_engine_event_descriptor(kvx_engine engine, int32_t *descriptor);

// Allocates `len` bytes of zeroed, page-aligned memory, fit to be registered: peers on the same
// host reach it fastest.
//
// # Safety
// `address` and `buffer` point to room for an address and a handle.
kvx_status kvx_buffer_allocate(uint64_t len, void **address, kvx_buffer *buffer);

// Lets go of a buffer. Its memory is freed when no region that was registered of it is left
// either.
kvx_status kvx_buffer_release(kvx_buffer buffer);

// Registers a buffer.
//
// # Safety
// `region` points to room for a handle.
kvx_status kvx_buffer_register(kvx_engine engine,
                               kvx_buffer buffer,
                               uint32_t rights,
                               kvx_region *region);

// Registers `len` bytes of the caller's own memory from `address` on. The engine never frees them.
//
// # Safety
// Until kvx_region_deregister() or kvx_engine_close() has returned, the engine and, as far as
// `rights` go, its peers may read and write the range at any moment; it may be unmapped early
// (transfers then fail), but nothing else may be mapped there. `region` points to room for a
// handle.
kvx_status kvx_register(kvx_engine engine,
                        void *address,
                        uint64_t len,
                        uint32_t rights,
                        kvx_region *region);

// Publishes a region: from now on, and as long as it is registered, any peer that asks by
// kvx_peer_published() is told of it. Whoever may connect to the engine may then use it, within its
// rights. Once more does nothing.
kvx_status kvx_region_publish(kvx_region region);

// Deregisters a region. When this returns, no byte lands in it and none is read from it any more,
// whatever peers do; transfers that used it fail.
kvx_status kvx_region_deregister(kvx_region region);

// What others need to reach these regions, to be handed over on any channel, for
// kvx_peer_add(). Whoever holds it may use the regions, within their rights, if it may connect at
// all: keep it secret.
//
// # Safety
// `regions` points to `count` handles; `len` points to the room that `buffer` has, and there the
// length is told.
kvx_status kvx_engine_metadata(kvx_engine engine,
                               const kvx_region *regions,
                               size_t count,
                               uint8_t *buffer,
                               size_t *len);

// Takes the next notification, waiting `timeout_ns` at most for one (0: not at all; negative: 292
// years). KVX_PENDING if there is none.
//
// # Safety
// `notification` points to room for a handle, `len` is null or points to room for the number of
// its bytes.
kvx_status kvx_notification_take(kvx_engine engine,
                                 int64_t timeout_ns,
                                 kvx_notification *notification,
                                 size_t *len);

// Where the number of notifications stands that are there and were not taken, to be looked at
// without a call. Valid for as long as the process lives; of a closed engine it changes no more.
//
// # Safety
// `word` points to room for an address.
kvx_status kvx_notification_count_word(kvx_engine engine, const size_t **word);

// A notification's bytes.
//
// # Safety
// `len` points to the room that `buffer` has; there their number is told.
kvx_status kvx_notification_bytes(kvx_notification notification, uint8_t *buffer, size_t *len);

// The id of the engine that a notification is from: 16 bytes. KVX_PENDING if it is not known.
//
// # Safety
// `id` points to room for 16 bytes.
kvx_status kvx_notification_engine(kvx_notification notification, uint8_t (*id)[16]);

// What errors call the peer that a notification is from, as text without a final zero.
//
// # Safety
// `len` points to the room that `buffer` has; there its length is told.
kvx_status kvx_notification_peer(kvx_notification notification, char *buffer, size_t *len);

// Releases a notification.
kvx_status kvx_notification_release(kvx_notification notification);

// What an operation has come to, as far as it has: KVX_PENDING while it is under way. Never waits,
// and makes no system call.
kvx_status kvx_operation_poll(kvx_operation operation);

// Waits on the calling thread until an operation has ended, for `timeout_ns` at most (then it is
// KVX_PENDING); with a negative timeout until it has, as every operation does by its deadline.
kvx_status kvx_operation_wait(kvx_operation operation, int64_t timeout_ns);

// Gives a transfer up. It then ends as KVX_CANCELLED, once the owner of the memory has confirmed,
// as KVX_CANCELLED_UNFENCED at its deadline, or well if it was done before. What is no transfer
// cannot be given up: KVX_UNSUPPORTED.
kvx_status kvx_operation_cancel(kvx_operation operation);

// Lets go of an operation, which goes on if it is under way.
kvx_status kvx_operation_release(kvx_operation operation);

// Where an operation's status stands, to be looked at without a call: KVX_PENDING, then what
// kvx_operation_poll() says. Valid until the operation is released.
//
// # Safety
// `word` points to room for an address.
kvx_status kvx_operation_status_word(kvx_operation operation, const int32_t **word);

// What a transfer, or a session that was finished, has moved. Of one that is not done, its status.
//
// # Safety
// `report` points to room for a kvx_transfer_report.
kvx_status kvx_operation_report(kvx_operation operation, kvx_transfer_report *report);

// The peer that kvx_peer_connect() has connected to, or kvx_peer_published() has asked, as a handle
// of its own.
//
// # Safety
// `peer` points to room for a handle.
kvx_status kvx_operation_peer(kvx_operation operation, kvx_peer *peer);

// Adds a peer from its metadata, or more regions of a peer added before, and begins to connect to
// it. Transfers may be posted at once.
//
// # Safety
// `metadata` points to `len` bytes, `peer` to room for a handle.
kvx_status kvx_peer_add(kvx_engine engine, const uint8_t *metadata, size_t len, kvx_peer *peer);

// Connects to the engine at `address` ("host:port"), whoever it is. When the operation has ended,
// kvx_operation_peer() has the peer.
//
// # Safety
// `address` ends with a zero; `operation` points to room for a handle.
kvx_status kvx_peer_connect(kvx_engine engine, const char *address, kvx_operation *operation);

// The engine as a peer of its own: transfers to it are copies.
//
// # Safety
// `peer` points to room for a handle.
kvx_status kvx_peer_myself(kvx_engine engine, kvx_peer *peer);

// What errors call the peer, as text without a final zero.
//
// # Safety
// `len` points to the room that `buffer` has; there its length is told.
kvx_status kvx_peer_name(kvx_peer peer, char *buffer, size_t *len);

// The peer's engine and its life: 16 bytes each, either may be null. KVX_PENDING as long as nothing
// is proven.
//
// # Safety
// `id` and `incarnation` are null or point to room for 16 bytes.
kvx_status kvx_peer_identity(kvx_peer peer, uint8_t (*id)[16], uint8_t (*incarnation)[16]);

// The same peer with the regions of `other`, too, which is the same peer added again: first those of
// `peer`, then those of `other`. All three are handles of their own.
//
// # Safety
// `joined` points to room for a handle.
kvx_status kvx_peer_join(kvx_peer peer,
                         kvx_peer other,
                         kvx_peer *joined);

// The number of the peer's regions: those that its metadata listed, or that it published when
// kvx_peer_published() asked.
//
// # Safety
// `count` points to room for a number.
kvx_status kvx_peer_region_count(kvx_peer peer, size_t *count);

// One of them, in the order of the metadata; of those that it published, oldest first.
//
// # Safety
// `region` points to room for a kvx_remote_region.
kvx_status kvx_peer_region(kvx_peer peer, size_t index, kvx_remote_region *region);

// KVX_OK if the peer is connected at present, else KVX_PENDING.
kvx_status kvx_peer_is_connected(kvx_peer peer);

// Ends when the peer is connected.
//
// # Safety
// `operation` points to room for a handle.
kvx_status kvx_peer_ready(kvx_peer peer, kvx_operation *operation);

// Asks a peer which regions it publishes. When the operation has ended, kvx_operation_peer() has
// the peer with these regions; what was deregistered since the last time is not among them.
// KVX_UNSUPPORTED if the peer's version publishes nothing.
//
// # Safety
// `operation` points to room for a handle.
kvx_status kvx_peer_published(kvx_peer peer, kvx_operation *operation);

// Tells the peer's user these bytes; ends when the peer has them.
//
// # Safety
// `bytes` points to `len` bytes, `operation` to room for a handle.
kvx_status kvx_peer_notify(kvx_peer peer,
                           const uint8_t *bytes,
                           size_t len,
                           kvx_operation *operation);

// Forgets a peer: everything outstanding with it fails with KVX_PEER_REMOVED, and nothing of it
// lands any more when this returns. The handle is released.
kvx_status kvx_peer_remove(kvx_peer peer);

// Releases a handle; the engine keeps the peer.
kvx_status kvx_peer_release(kvx_peer peer);

// A pool that lies in these regions, as the layout says. Made once, used for every session; it
// keeps no region registered.
//
// # Safety
// `layout` points to a layout whose arrays are as long as it says, `regions` to `count` handles,
// `pool` to room for a handle.
kvx_status kvx_pool_create(const kvx_layout *layout,
                           const kvx_region *regions,
                           size_t count,
                           kvx_pool *pool);

// Releases a pool. Sessions that use it go on.
kvx_status kvx_pool_release(kvx_pool pool);

// Opens the sending side of a session; the receiver may have come before. `deadline_ns`: how long
// to wait for it, and for progress of each write; 0: the engine's.
//
// # Safety
// `key` points to a key, `sender` to room for a handle.
kvx_status kvx_sender_open(kvx_engine engine,
                           const kvx_session_key *key,
                           kvx_pool pool,
                           uint64_t deadline_ns,
                           kvx_sender *sender);

// Ends when the receiver has granted its blocks; kvx_operation_granted() tells which.
//
// # Safety
// `operation` points to room for a handle.
kvx_status kvx_sender_granted(kvx_sender sender, kvx_operation *operation);

// Writes `layers` layers from `first_layer` on (counted in the whole model) of the prompt, which
// lies in `blocks` of the sender's pool. To be called for each group of layers as prefill finishes
// them, in any order, each layer once.
//
// # Safety
// `blocks` points to `count` entries, `operation` to room for a handle.
kvx_status kvx_sender_write(kvx_sender sender,
                            uint32_t first_layer,
                            uint32_t layers,
                            const uint32_t *blocks,
                            size_t count,
                            kvx_operation *operation);

// Says that all layers were written, with the small payload that decode needs (256 KiB at most).
// The operation ends when everything is in the receiver's memory and it knows. The handle is
// released.
//
// # Safety
// `payload` points to `len` bytes, `operation` to room for a handle.
kvx_status kvx_sender_finish(kvx_sender sender,
                             const uint8_t *payload,
                             size_t len,
                             kvx_operation *operation);

// Gives the session up; the receiver is told why. The handle is released.
//
// # Safety
// `reason` is null or ends with a zero.
kvx_status kvx_sender_abort(kvx_sender sender, const char *reason);

// Opens the receiving side of a session with this peer as the sender: grants it `blocks` of
// `pool`, which stand for `tokens` tokens. The sender may come later. `deadline_ns`: how long
// nothing may arrive, the time until the first layer included; 0: the engine's.
//
// # Safety
// `key` points to a key, `blocks` to `count` entries, `receiver` to room for a handle.
kvx_status kvx_receiver_open(kvx_peer peer,
                             const kvx_session_key *key,
                             kvx_pool pool,
                             uint32_t tokens,
                             const uint32_t *blocks,
                             size_t count,
                             uint64_t deadline_ns,
                             kvx_receiver *receiver);

// Ends when this layer (counted in the whole model) has arrived.
//
// # Safety
// `operation` points to room for a handle.
kvx_status kvx_receiver_layer(kvx_receiver receiver, uint32_t layer, kvx_operation *operation);

// The number of layers that have arrived.
//
// # Safety
// `layers` points to room for a number.
kvx_status kvx_receiver_arrived(kvx_receiver receiver, uint32_t *layers);

// Ends when everything has arrived; kvx_operation_payload() then has what the sender ended with.
//
// # Safety
// `operation` points to room for a handle.
kvx_status kvx_receiver_done(kvx_receiver receiver, kvx_operation *operation);

// Ends the receiving side: aborts the session, with a reason or without (null), unless it is
// complete. When this returns, nothing lands in the granted blocks any more. The handle is
// released.
//
// # Safety
// `reason` is null or ends with a zero.
kvx_status kvx_receiver_close(kvx_receiver receiver, const char *reason);

// What the receiver has granted, once kvx_sender_granted() has ended.
//
// # Safety
// `granted` points to room for a kvx_granted.
kvx_status kvx_operation_granted(kvx_operation operation, kvx_granted *granted);

// What the sender ended with, once kvx_receiver_done() has ended.
//
// # Safety
// `len` points to the room that `buffer` has; there its length is told.
kvx_status kvx_operation_payload(kvx_operation operation, uint8_t *buffer, size_t *len);

// What the calling thread's last failed call failed with, in English. Never null; valid until the
// thread's next call of a kvx function fails.
const char *kvx_error_message(void);

// The version of the library, such as "1.2.3". Never null; valid for ever.
const char *kvx_version(void);

// A list of spans in own memory: span i is `lens[i]` bytes from `offsets[i]` on in
// `regions[region[i]]`. The columns are copied. The list keeps no region registered.
//
// # Safety
// `regions` points to `region_count` handles, the columns to `count` entries each, `spans` to room
// for a handle.
kvx_status kvx_spans_local(const kvx_region *regions,
                           size_t region_count,
                           const uint32_t *region,
                           const uint64_t *offsets,
                           const uint64_t *lens,
                           size_t count,
                           kvx_spans *spans);

// A list of spans in a peer's memory: span i is `lens[i]` bytes from `offsets[i]` on in the
// `region[i]`th of the peer's regions. The columns are copied.
//
// # Safety
// The columns point to `count` entries each, `spans` to room for a handle.
kvx_status kvx_spans_remote(kvx_peer peer,
                            const uint32_t *region,
                            const uint64_t *offsets,
                            const uint64_t *lens,
                            size_t count,
                            kvx_spans *spans);

// A list of spans in own memory, given by address: span i is `lens[i]` bytes at `addresses[i]`,
// each within one of the regions.
//
// # Safety
// `regions` points to `region_count` handles, the columns to `count` entries each, `spans` to room
// for a handle.
kvx_status kvx_spans_local_at(const kvx_region *regions,
                              size_t region_count,
                              const uint64_t *addresses,
                              const uint64_t *lens,
                              size_t count,
                              kvx_spans *spans);

// A list of spans in a peer's memory, given by the addresses that the peer knows it by: span i is
// `lens[i]` bytes at `addresses[i]`, each within one of the peer's regions.
//
// # Safety
// The columns point to `count` entries each, `spans` to room for a handle.
kvx_status kvx_spans_remote_at(kvx_peer peer,
                               const uint64_t *addresses,
                               const uint64_t *lens,
                               size_t count,
                               kvx_spans *spans);

// The number of spans in a list.
//
// # Safety
// `count` points to room for a number.
kvx_status kvx_spans_count(kvx_spans spans, size_t *count);

// Releases a list. What was prepared of it stays.
kvx_status kvx_spans_release(kvx_spans spans);

// Prepares a transfer (KVX_WRITE or KVX_READ): span i of `local` to or from span i of `remote`.
//
// # Safety
// `prepared` points to room for a handle.
kvx_status kvx_prepare(uint32_t op, kvx_spans local, kvx_spans remote, kvx_prepared *prepared);

// Prepares a transfer of chosen spans: number `local_indices[i]` of `local` to or from number
// `remote_indices[i]` of `remote`. Lists are made once and used for many requests.
//
// # Safety
// `local_indices` and `remote_indices` point to `count` entries each, `prepared` to room for a
// handle.
kvx_status kvx_prepare_selected(uint32_t op,
                                kvx_spans local,
                                const uint32_t *local_indices,
                                kvx_spans remote,
                                const uint32_t *remote_indices,
                                size_t count,
                                kvx_prepared *prepared);

// What each post of a prepared transfer will move.
//
// # Safety
// `size` points to room for a kvx_transfer_report.
kvx_status kvx_prepared_size(kvx_prepared prepared, kvx_transfer_report *size);

// Releases a prepared transfer. What was posted of it goes on.
kvx_status kvx_prepared_release(kvx_prepared prepared);

// Posts a prepared transfer, with options or without (null). The calling thread sends the first
// bytes itself and never blocks on the network.
//
// # Safety
// `options` is null or points to options whose notification is as long as it says; `operation`
// points to room for a handle.
kvx_status kvx_post(kvx_prepared prepared,
                    const kvx_post_options *options,
                    kvx_operation *operation);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KVX_H */
