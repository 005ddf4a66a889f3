/* What config.c and config_file.c share: the scope section. */
#ifndef NODE_CONFIG_FILE_H
#define NODE_CONFIG_FILE_H

#include "node/config.h"

/** Frees the array and its strings. Accepts NULL. */
void scope_free(struct scope_item *items, size_t count);

/** Appends the section as YAML; nothing when there are no items. */
void scope_print_yaml(const struct scope_item *items, size_t count, struct text *out);

#endif
