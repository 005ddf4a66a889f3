/* Both base64 forms: a text that is accepted is the only one for its bytes, and all bytes survive
 * encoding and decoding. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "wire/base64.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct form {
    size_t (*encoded_bytes)(size_t len);
    void (*encode)(struct slice in, uint8_t *out);
    enum felix_err (*decoded_bytes)(struct slice text, size_t *ret);
    enum felix_err (*decode)(struct slice text, uint8_t *out);
};

static void check_text(const struct form *form, struct slice text) {
    size_t bytes;
    if (form->decoded_bytes(text, &bytes) != FELIX_OK)
        return;
    uint8_t *plain = malloc(bytes);
    if (form->decode(text, plain) == FELIX_OK) {
        INVARIANT(form->encoded_bytes(bytes) == text.len);
        uint8_t *again = malloc(text.len);
        form->encode(slice_of(plain, bytes), again);
        INVARIANT(text.len == 0 || memcmp(again, text.data, text.len) == 0);
        free(again);
    }
    free(plain);
}

static void check_bytes(const struct form *form, struct slice plain) {
    size_t bytes = form->encoded_bytes(plain.len);
    uint8_t *text = malloc(bytes);
    form->encode(plain, text);
    size_t decoded;
    enum felix_err err = form->decoded_bytes(slice_of(text, bytes), &decoded);
    INVARIANT(err == FELIX_OK && decoded == plain.len);
    err = form->decode(slice_of(text, bytes), text);
    INVARIANT(err == FELIX_OK);
    INVARIANT(plain.len == 0 || memcmp(text, plain.data, plain.len) == 0);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct form forms[] = {
        {base64_encoded_bytes, base64_encode, base64_decoded_bytes, base64_decode},
        {base64url_encoded_bytes, base64url_encode, base64url_decoded_bytes, base64url_decode},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        check_text(&forms[i], slice_of(data, size));
        check_bytes(&forms[i], slice_of(data, size));
    }
    return 0;
}
