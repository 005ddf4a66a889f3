/* A build without libipsec-mb, or for a processor that it does not know. */
#include "quic/ipsec_mb.h"

const struct ipsec_mb *ipsec_mb_get(const char **why_not) {
    *why_not = "this build has no libipsec-mb";
    return NULL;
}
