#include "base/name.h"

bool name_valid(struct slice name) {
    if (name.len == 0 || name.len > NAME_VALID_BYTES_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        if (c < 0x20 || c == 0x7f || c == '/' || c == ':' || c == '*')
            return false;
    }
    return true;
}
