/*
 * Grants. The input is `permission LF resource`: the matcher must agree with a table that follows
 * the definition of the star, and a permission that parses must read back as it was written.
 */
#include <stdlib.h>

#include "auth/grant.h"
#include "base/check.h"

#define SIDE_BYTES_MAX 512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* row[t]: does the pattern so far match the first t bytes of the text? */
static bool glob_by_table(struct slice pattern, struct slice text) {
    bool row[SIDE_BYTES_MAX + 1] = {true};
    for (size_t p = 0; p < pattern.len; p++) {
        bool star = pattern.data[p] == '*';
        bool before = row[0];
        row[0] = row[0] && star;
        for (size_t t = 1; t <= text.len; t++) {
            bool above = row[t];
            row[t] = star ? above || row[t - 1] : before && pattern.data[p] == text.data[t - 1];
            before = above;
        }
    }
    return row[text.len];
}

static void permission_check(struct slice text, struct slice name) {
    struct grant grant;
    if (grant_parse(text, &grant) != FELIX_OK)
        return;

    const char *action = auth_action_name(grant.action);
    size_t action_bytes = strlen(action);
    INVARIANT(text.len == action_bytes + 1 + grant.object.len);
    INVARIANT(memcmp(text.data, action, action_bytes) == 0 && text.data[action_bytes] == ':');
    INVARIANT(slice_equal(grant.object, slice_of(text.data + action_bytes + 1, grant.object.len)));

    struct principal p = {
        .refs = 1, .tenant = slice_str("t1"), .grants_count = 1, .grants = &grant};
    struct resource r = {.tenant = slice_str("t1"), .namespace = slice_str("ns"), .name = name};
    if (grant.action != AUTH_STREAM_PUBLISH || name.len > NAME_VALID_BYTES_MAX)
        return;

    static const char head[] = "stream:t1/ns/";
    uint8_t resource[sizeof head + NAME_VALID_BYTES_MAX];
    memcpy(resource, head, sizeof head - 1);
    if (name.len != 0)
        memcpy(resource + sizeof head - 1, name.data, name.len);
    bool expected = grant_glob(grant.object, slice_of(resource, sizeof head - 1 + name.len));
    INVARIANT(principal_allows(&p, AUTH_STREAM_PUBLISH, &r) == expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *line = size != 0 ? memchr(data, '\n', size) : NULL;
    if (line == NULL)
        return 0;

    struct slice left = slice_of(data, (size_t)(line - data));
    struct slice right = slice_of(line + 1, size - left.len - 1);
    if (right.len > SIDE_BYTES_MAX || left.len > SIDE_BYTES_MAX)
        return 0;
    INVARIANT(grant_glob(left, right) == glob_by_table(left, right));
    permission_check(left, right);
    (void)name_valid(right);
    return 0;
}
