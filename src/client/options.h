/*
 * Settings of a client: defaults, FELIX_PROFILE, the environment, what the application sets.
 *
 * A felix_options belongs to the thread that made it; felix_connect copies it.
 */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include <felix/felix.h>

#include "base/err.h"

#define NUMBER(member, fallback, min, max, help) uint64_t member;
#define CHOICE(member, fallback, names, help) uint64_t member;
#define TEXT(member, name, help)
struct client_settings {
#include "client/options.def"
};
#undef NUMBER
#undef CHOICE
#undef TEXT

enum pub_sharding { PUB_SHARDING_HASH, PUB_SHARDING_ROUND_ROBIN };

struct felix_options {
    struct client_settings settings;
#define NUMBER(member, fallback, min, max, help)
#define CHOICE(member, fallback, names, help)
#define TEXT(member, name, help) char *member; /* NULL: not set */
#include "client/options.def"
#undef NUMBER
#undef CHOICE
#undef TEXT
};

/** Returns owned: a copy of everything. */
struct felix_options *options_copy(const struct felix_options *options);

struct server_address {
    char host[256];
    char port[6];
};

/** Split "host:port", "host", "[::1]:5000". FELIX_INVALID_ARGUMENT with the reason in reterr. */
enum felix_err options_split_server(const char *text, struct server_address *ret,
                                    struct felix_error *reterr);

/** The token: that of the file, which is read now, else the one that was set. Returns owned in
 * *ret (free()). FELIX_UNAUTHENTICATED when there is none, FELIX_SYSTEM when the file refuses. */
enum felix_err options_token(const struct felix_options *options, char **ret,
                             struct felix_error *reterr);

#endif
