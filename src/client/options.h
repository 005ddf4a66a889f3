/*
 * Settings of a client: defaults, FELIX_PROFILE, the environment, what the application sets.
 *
 * A felix_options belongs to the thread that made it; felix_connect copies it.
 */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include <felix/felix.h>

#include "base/err.h"
#include "base/options.h"

#define X OPTION_FIELD
struct client_settings {
#include "client/options.def"
};
#undef X

enum pub_sharding { PUB_SHARDING_HASH, PUB_SHARDING_ROUND_ROBIN };

struct felix_options {
    struct client_settings settings;
    struct options options; /* over settings */
};

/** Returns owned: a copy of everything, freed with felix_options_free. */
struct felix_options *options_copy(const struct felix_options *options);

struct server_address {
    char host[256];
    char port[6];
};

/** Split "host:port", "host" or "[::1]:5000". FELIX_INVALID_ARGUMENT with the reason. */
enum felix_err options_split_server(const char *text, struct server_address *ret,
                                    struct felix_error *reterr);

/** The token: that of the file, which is read now, else the one that was set. Returns owned in
 * *ret (free()). FELIX_UNAUTHENTICATED when there is none, FELIX_SYSTEM when the file refuses. */
enum felix_err options_token(const struct client_settings *settings, char **ret,
                             struct felix_error *reterr);

/** The page docs/client-settings.md. */
void options_page(struct text *out);

#endif
