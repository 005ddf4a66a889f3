/*
 * The YAML file of the broker: whatever it contains, it is taken or refused with a text; and what
 * was taken is printed as a file that gives the same configuration again.
 */
#include "base/check.h"
#include "base/map.h"
#include "node/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Parses `yaml` and returns owned what it was printed as, or NULL when it was refused. */
static char *parse_and_print(struct slice yaml) {
    struct config config;
    struct felix_error error = {0};
    struct text printed = {0};
    char *result = NULL;

    config_init(&config);
    if (config_parse_yaml(&config, yaml, "fuzz.yml", &error) == FELIX_OK) {
        config_print_yaml(&config, &printed);
        result = text_take(&printed);
    } else {
        INVARIANT(error.text[0] != '\0');
    }
    config_deinit(&config);
    return result;
}

/* Most inputs that are taken print as something that was printed before; what holds for one text
 * holds for the same text again. Remembers it until another one needs its place. */
#define SEEN_TEXTS 4096u

static bool seen_before(const char *text) {
    static char *seen[SEEN_TEXTS];
    size_t at = (size_t)map_hash(slice_str(text)) % SEEN_TEXTS;
    if (seen[at] != NULL && strcmp(seen[at], text) == 0)
        return true;
    free(seen[at]);
    seen[at] = xstrdup(text);
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    char *first = parse_and_print(slice_of(data, len));
    if (first == NULL || seen_before(first)) {
        free(first);
        return 0;
    }
    /* The first print names sources that the second time are all the file. */
    char *second = parse_and_print(slice_str(first));
    INVARIANT(second != NULL);
    if (!seen_before(second)) {
        char *third = parse_and_print(slice_str(second));
        INVARIANT(third != NULL && strcmp(second, third) == 0);
        free(third);
    }
    free(first);
    free(second);
    return 0;
}
