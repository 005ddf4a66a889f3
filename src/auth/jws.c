#include "auth/jws.h"

#include "wire/json.h"

/* Takes what stands before the first dot, and the dot. */
static bool jws_take_part(struct slice *rest, struct slice *ret) {
    const uint8_t *dot = rest->len != 0 ? memchr(rest->data, '.', rest->len) : NULL;
    if (dot == NULL)
        return false;
    *ret = slice_of(rest->data, (size_t)(dot - rest->data));
    *rest = slice_of(dot + 1, rest->len - ret->len - 1);
    return true;
}

bool jws_split(struct slice token, struct jws *ret) {
    struct slice rest = token;
    if (token.len > TOKEN_BYTES_MAX)
        return false;
    if (!jws_take_part(&rest, &ret->header) || !jws_take_part(&rest, &ret->claims))
        return false;
    if (rest.len != 0 && memchr(rest.data, '.', rest.len) != NULL)
        return false;
    ret->signature = rest;
    ret->message = slice_of(token.data, ret->header.len + 1 + ret->claims.len);
    return true;
}

bool jws_decode(struct slice part, uint8_t *out, struct slice *ret) {
    size_t bytes = 0;
    if (base64url_decoded_bytes(part, &bytes) != FELIX_OK || bytes > JWS_PART_BYTES_MAX)
        return false;
    if (base64url_decode(part, out) != FELIX_OK)
        return false;
    *ret = slice_of(out, bytes);
    return true;
}
