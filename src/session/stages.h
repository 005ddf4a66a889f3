/* The stages whose time a node measures unless FELIX_DISABLE_TIMINGS is set. */
#ifndef SESSION_STAGES_H
#define SESSION_STAGES_H

/* X(name, text, what is measured) */
#define STAGE_MAP(X)                                                                               \
    X(READ, "read", "one turn's receive: system call, decryption, everything handled in it")       \
    X(DECODE, "decode", "one publish body: all lengths and names")                                 \
    X(AUTHORISE, "authorise", "one publish: stream looked up, permission checked")                 \
    X(ENQUEUE, "enqueue", "one publish: sequence, ring, subscriber queues")                        \
    X(ENCODE, "encode", "one subscription served: frames queued to its stream")                    \
    X(SEND, "send", "one turn's flush: encryption and system calls")                               \
    X(PUBLISH_TO_WRITE, "publish_to_write", "publish read until queued to a subscriber's stream")

#define STAGE_ENUM(name, text, what) STAGE_##name,
enum stage { STAGE_MAP(STAGE_ENUM) STAGE_COUNT };
#undef STAGE_ENUM

#endif
