/* Names of tenants, namespaces, streams and caches: which can exist. Pure, any thread. */
#ifndef BASE_NAME_H
#define BASE_NAME_H

#include "base/slice.h"

#define NAME_VALID_BYTES_MAX 255u

/**
 * May something carry this name? 1 to NAME_VALID_BYTES_MAX bytes, none of them '/', ':', '*' or a
 * control character. Source: control plane specification, hazard H4.
 */
bool name_valid(struct slice name);

#endif
