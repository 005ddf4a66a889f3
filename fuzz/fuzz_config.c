/*
 * The YAML file of the broker: whatever it contains, it is taken or refused with a text; and what
 * was taken is printed as a file that gives the same configuration again.
 */
#include "base/check.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    char *first = parse_and_print(slice_of(data, len));
    if (first == NULL)
        return 0;
    /* The first print names sources that the second time are all the file. */
    char *second = parse_and_print(slice_str(first));
    INVARIANT(second != NULL);
    char *third = parse_and_print(slice_str(second));
    INVARIANT(third != NULL && strcmp(second, third) == 0);
    free(first);
    free(second);
    free(third);
    return 0;
}
