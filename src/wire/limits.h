/* Every bound of the wire protocol in one place. Source: wire specification, sections 3 to 5. */
#ifndef WIRE_LIMITS_H
#define WIRE_LIMITS_H

#define FRAME_HEADER_BYTES 12u
#define FRAME_MAX_BYTES_DEFAULT (16u << 20)

/* Before a stream has authenticated it may send only what an auth needs. */
#define FRAME_MAX_BYTES_UNAUTHENTICATED (64u << 10)

#define NAME_BYTES_MAX 65535u /* of a tenant, namespace or stream on the wire */
#define JSON_DEPTH_MAX 128u   /* nesting, unknown members included */
#define ACK_MESSAGE_BYTES_MAX 512u

#endif
