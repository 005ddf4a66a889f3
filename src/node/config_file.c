/*
 * The YAML file: a flat mapping of keys to scalars, and one nested section, `scope`.
 *
 * libyaml builds the whole document (the file is bounded), and this code walks it to a fixed
 * depth, so aliases cannot blow it up. Everything that is not expected is an error with its line:
 * an unknown or repeated key, a list where a value belongs, a second document. A key with null is
 * as good as absent.
 */
#include "node/config_file.h"

#include "base/check.h"
#include "node/scope.h"

#include <stdlib.h>
#include <yaml.h>

#define SCOPE_NAME_BYTES_MAX 65535u /* wire specification, section 3: names have 16-bit lengths */

struct file {
    struct config *config;
    yaml_document_t document;
    const char *name;
    struct felix_error *reterr;
};

/* A scope item under construction: the names above it. */
struct scope_place {
    const char *tenant;
    const char *space;
};

static unsigned long long line_of(const yaml_node_t *node) {
    return (unsigned long long)node->start_mark.line + 1;
}

static enum felix_err refuse(const struct file *file, const yaml_node_t *node, enum felix_err code,
                             const char *text) {
    return error_set(file->reterr, code, 0, "%s:%llu: %s", file->name, line_of(node), text);
}

static yaml_node_t *node_at(struct file *file, int index) {
    return yaml_document_get_node(&file->document, index);
}

static bool is_null(const yaml_node_t *node) {
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    struct slice value = slice_of(node->data.scalar.value, node->data.scalar.length);
    return value.len == 0 || slice_is(value, "~") || slice_is(value, "null") ||
           slice_is(value, "Null") || slice_is(value, "NULL");
}

/* The text of a scalar, or NULL when it is none or contains a zero byte. */
static const char *scalar_text(const yaml_node_t *node) {
    if (node->type != YAML_SCALAR_NODE)
        return NULL;
    const char *text = (const char *)node->data.scalar.value;
    return strlen(text) == node->data.scalar.length ? text : NULL;
}

static enum felix_err add_item(struct file *file, const yaml_node_t *node,
                               const struct scope_item *item, const char *name,
                               struct scope_item **ret) {
    struct config *config = file->config;
    if (name == NULL || name[0] == '\0' || strlen(name) > SCOPE_NAME_BYTES_MAX)
        return refuse(file, node, FELIX_INVALID_ARGUMENT,
                      "a name in the scope must be a text of 1 .. 65535 bytes");
    config->scope = xrealloc(config->scope, (config->scope_count + 1) * sizeof *config->scope);
    struct scope_item *added = &config->scope[config->scope_count++];
    *added = *item;
    added->tenant = xstrdup(item->kind == SCOPE_TENANT ? name : item->tenant);
    added->space = NULL;
    added->name = NULL;
    if (item->kind == SCOPE_NAMESPACE)
        added->space = xstrdup(name);
    else if (item->kind != SCOPE_TENANT)
        added->space = xstrdup(item->space);
    if (item->kind == SCOPE_STREAM || item->kind == SCOPE_CACHE)
        added->name = xstrdup(name);
    *ret = added;
    return FELIX_OK;
}

/* Returns false when it is none of a stream's settings. */
static bool stream_setting(struct file *file, struct scope_item *item, const char *name,
                           const yaml_node_t *value, enum felix_err *ret) {
    const char *text = scalar_text(value);
    const char *rule;
    bool good;
    if (strcmp(name, "durable") == 0) {
        good = text != NULL && option_bool_parse(text, &item->durable);
        rule = "durable must be one of 1, true, yes, on, 0, false, no, off";
    } else if (strcmp(name, "retention_bytes") == 0) {
        good = text != NULL && option_bytes_parse(text, &item->retention_bytes) &&
               item->retention_bytes > 0 && item->retention_bytes <= RETENTION_BYTES_MAX;
        rule = "retention_bytes must be a number of bytes above 0 (KiB, MiB, GiB may follow)";
    } else if (strcmp(name, "retention_seconds") == 0) {
        good = text != NULL && strspn(text, "0123456789") == strlen(text) &&
               option_bytes_parse(text, &item->retention_seconds) && item->retention_seconds > 0 &&
               item->retention_seconds <= RETENTION_SECONDS_MAX;
        rule = "retention_seconds must be a number of seconds above 0";
    } else {
        return false;
    }
    *ret = good ? FELIX_OK : refuse(file, value, FELIX_INVALID_ARGUMENT, rule);
    return true;
}

/* One setting of a stream or cache. */
static enum felix_err item_setting(struct file *file, struct scope_item *item,
                                   const yaml_node_t *key, const yaml_node_t *value) {
    const char *name = scalar_text(key);
    const char *text = scalar_text(value);
    enum felix_err err;
    if (name != NULL && item->kind == SCOPE_STREAM && stream_setting(file, item, name, value, &err))
        return err;
    if (name != NULL && item->kind == SCOPE_CACHE && strcmp(name, "max_bytes") == 0) {
        if (text == NULL || !option_bytes_parse(text, &item->max_bytes))
            return refuse(file, value, FELIX_INVALID_ARGUMENT,
                          "max_bytes must be a number of bytes (KiB, MiB, GiB may follow)");
        return FELIX_OK;
    }
    return refuse(file, key, FELIX_NOT_FOUND,
                  item->kind == SCOPE_STREAM ? "a stream has no other settings than durable, "
                                               "retention_bytes and retention_seconds"
                                             : "a cache has no other setting than max_bytes");
}

static enum felix_err item_settings(struct file *file, struct scope_item *item,
                                    const yaml_node_t *settings) {
    if (is_null(settings))
        return FELIX_OK;
    if (settings->type != YAML_MAPPING_NODE)
        return refuse(file, settings, FELIX_INVALID_ARGUMENT,
                      "the settings of a stream or cache must be a mapping");
    for (yaml_node_pair_t *pair = settings->data.mapping.pairs.start;
         pair < settings->data.mapping.pairs.top; pair++) {
        const yaml_node_t *value = node_at(file, pair->value);
        if (is_null(value))
            continue;
        enum felix_err err = item_setting(file, item, node_at(file, pair->key), value);
        if (err != FELIX_OK)
            return err;
    }
    if (!item->durable && (item->retention_bytes != 0 || item->retention_seconds != 0))
        return refuse(file, settings, FELIX_INVALID_ARGUMENT,
                      "retention is for durable streams: add durable: true");
    return FELIX_OK;
}

/* `streams:` or `caches:` of a namespace: a list of names, or names with settings. */
static enum felix_err scope_leaves(struct file *file, const struct scope_item *parent,
                                   const yaml_node_t *node) {
    struct scope_item *added;
    enum felix_err err = FELIX_OK;
    if (node->type == YAML_SEQUENCE_NODE) {
        for (yaml_node_item_t *item = node->data.sequence.items.start;
             item < node->data.sequence.items.top && err == FELIX_OK; item++)
            err = add_item(file, node_at(file, *item), parent, scalar_text(node_at(file, *item)),
                           &added);
        return err;
    }
    if (node->type != YAML_MAPPING_NODE)
        return refuse(file, node, FELIX_INVALID_ARGUMENT,
                      "streams and caches must be a mapping or a list of names");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top && err == FELIX_OK; pair++) {
        const yaml_node_t *key = node_at(file, pair->key);
        err = add_item(file, key, parent, scalar_text(key), &added);
        if (err == FELIX_OK)
            err = item_settings(file, added, node_at(file, pair->value));
    }
    return err;
}

static enum felix_err scope_spaces(struct file *file, const struct scope_item *tenant,
                                   const yaml_node_t *node);

/* The value of a tenant (`namespaces`) or of a namespace (`streams`, `caches`). */
static enum felix_err scope_children(struct file *file, const struct scope_item *owner,
                                     const yaml_node_t *node) {
    bool is_tenant = owner->kind == SCOPE_TENANT;
    if (is_null(node))
        return FELIX_OK;
    if (node->type != YAML_MAPPING_NODE)
        return refuse(file, node, FELIX_INVALID_ARGUMENT,
                      is_tenant ? "a tenant must be a mapping with namespaces"
                                : "a namespace must be a mapping with streams and caches");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *value = node_at(file, pair->value);
        const char *key = scalar_text(node_at(file, pair->key));
        struct scope_item child = {.tenant = owner->tenant, .space = owner->space};
        enum felix_err err = FELIX_OK;
        if (key != NULL && is_tenant && strcmp(key, "namespaces") == 0) {
            child.kind = SCOPE_NAMESPACE;
            err = is_null(value) ? FELIX_OK : scope_spaces(file, &child, value);
        } else if (key != NULL && !is_tenant && strcmp(key, "streams") == 0) {
            child.kind = SCOPE_STREAM;
            err = is_null(value) ? FELIX_OK : scope_leaves(file, &child, value);
        } else if (key != NULL && !is_tenant && strcmp(key, "caches") == 0) {
            child.kind = SCOPE_CACHE;
            err = is_null(value) ? FELIX_OK : scope_leaves(file, &child, value);
        } else {
            err = refuse(file, node_at(file, pair->key), FELIX_NOT_FOUND,
                         is_tenant ? "a tenant has no other key than namespaces"
                                   : "a namespace has no other keys than streams and caches");
        }
        if (err != FELIX_OK)
            return err;
    }
    return FELIX_OK;
}

/* `tenants:` or `namespaces:`: names with what is below them. `parent` carries the kind. */
static enum felix_err scope_spaces(struct file *file, const struct scope_item *parent,
                                   const yaml_node_t *node) {
    if (node->type != YAML_MAPPING_NODE)
        return refuse(file, node, FELIX_INVALID_ARGUMENT,
                      "tenants and namespaces must be mappings");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = node_at(file, pair->key);
        struct scope_item *added;
        enum felix_err err = add_item(file, key, parent, scalar_text(key), &added);
        if (err != FELIX_OK)
            return err;
        struct scope_item owner = *added; /* the array may move below */
        err = scope_children(file, &owner, node_at(file, pair->value));
        if (err != FELIX_OK)
            return err;
    }
    return FELIX_OK;
}

static int compare_items(const void *left, const void *right) {
    return scope_item_compare(*(const struct scope_item *const *)left,
                              *(const struct scope_item *const *)right);
}

static enum felix_err refuse_repeated_items(const struct file *file, const yaml_node_t *scope) {
    const struct config *config = file->config;
    enum felix_err err = FELIX_OK;
    const struct scope_item **sorted = xcalloc(config->scope_count, sizeof *sorted);
    for (size_t i = 0; i < config->scope_count; i++)
        sorted[i] = &config->scope[i];
    if (config->scope_count > 1)
        qsort(sorted, config->scope_count, sizeof *sorted, compare_items);
    for (size_t i = 1; i < config->scope_count && err == FELIX_OK; i++) {
        const struct scope_item *item = sorted[i];
        if (compare_items(&sorted[i - 1], &sorted[i]) != 0)
            continue;
        err = error_set(file->reterr, FELIX_INVALID_ARGUMENT, 0,
                        "%s:%llu: the scope names %.60s%s%.60s%s%.60s more than once", file->name,
                        line_of(scope), item->tenant, item->space != NULL ? "/" : "",
                        item->space != NULL ? item->space : "", item->name != NULL ? "/" : "",
                        item->name != NULL ? item->name : "");
    }
    free(sorted);
    return err;
}

static enum felix_err scope_section(struct file *file, const yaml_node_t *node) {
    if (node->type != YAML_MAPPING_NODE)
        return refuse(file, node, FELIX_INVALID_ARGUMENT, "scope must be a mapping with tenants");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = node_at(file, pair->key);
        const yaml_node_t *value = node_at(file, pair->value);
        const char *name = scalar_text(key);
        if (name == NULL || strcmp(name, "tenants") != 0)
            return refuse(file, key, FELIX_NOT_FOUND, "scope has no other key than tenants");
        if (is_null(value))
            continue;
        struct scope_item root = {.kind = SCOPE_TENANT};
        enum felix_err err = scope_spaces(file, &root, value);
        if (err != FELIX_OK)
            return err;
    }
    return refuse_repeated_items(file, node);
}

static enum felix_err top_level_pair(struct file *file, const yaml_node_t *key_node,
                                     const yaml_node_t *value_node) {
    const char *key = scalar_text(key_node);
    if (key == NULL)
        return refuse(file, key_node, FELIX_INVALID_ARGUMENT, "a key must be a plain text");
    if (is_null(value_node) && (strcmp(key, "scope") == 0 || config_ignored_key(key) != NULL))
        return FELIX_OK;
    if (strcmp(key, "scope") == 0)
        return scope_section(file, value_node);

    const char *reason = config_ignored_key(key);
    if (reason != NULL) {
        config_warn(file->config, "%s in %s has no effect: %s", key, file->name, reason);
        return FELIX_OK;
    }
    size_t row = options_find_key(&file->config->options, key);
    const char *value = scalar_text(value_node);
    if (row < file->config->options.count && is_null(value_node))
        return FELIX_OK;
    if (row < file->config->options.count && value == NULL)
        return error_set(file->reterr, FELIX_INVALID_ARGUMENT, 0,
                         "%s:%llu: %s must be a single value", file->name, line_of(value_node),
                         key);

    struct felix_error error = {0};
    enum felix_err err = options_set_key(&file->config->options, OPTION_FROM_FILE, key,
                                         value != NULL ? value : "", &error);
    if (err != FELIX_OK)
        return refuse(file, key_node, err, error.text);
    return FELIX_OK;
}

static enum felix_err top_level(struct file *file, const yaml_node_t *root) {
    if (is_null(root))
        return FELIX_OK;
    if (root->type != YAML_MAPPING_NODE)
        return refuse(file, root, FELIX_INVALID_ARGUMENT,
                      "the file must be a mapping of keys to values");
    bool seen[OPTION_ROWS_MAX + 1] = {false}; /* the last one is for the scope */
    for (yaml_node_pair_t *pair = root->data.mapping.pairs.start;
         pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = node_at(file, pair->key);
        enum felix_err err = top_level_pair(file, key, node_at(file, pair->value));
        if (err != FELIX_OK)
            return err;
        const char *name = scalar_text(key);
        size_t row = strcmp(name, "scope") == 0 ? OPTION_ROWS_MAX
                                                : options_find_key(&file->config->options, name);
        if (row == file->config->options.count)
            continue; /* without effect, so its number does not matter */
        if (seen[row])
            return error_set(file->reterr, FELIX_INVALID_ARGUMENT, 0,
                             "%s:%llu: %s is given more than once", file->name, line_of(key), name);
        seen[row] = true;
    }
    return FELIX_OK;
}

static enum felix_err refuse_syntax(const struct file *file, const yaml_parser_t *parser) {
    return error_set(file->reterr, FELIX_INVALID_ARGUMENT, 0, "%s:%llu: not valid YAML: %s",
                     file->name, (unsigned long long)parser->problem_mark.line + 1,
                     parser->problem != NULL ? parser->problem : "unknown problem");
}

enum felix_err config_parse_yaml(struct config *config, struct slice yaml, const char *file_name,
                                 struct felix_error *reterr) {
    struct file file = {.config = config, .name = file_name, .reterr = reterr};
    yaml_parser_t parser;
    enum felix_err err = FELIX_OK;

    INVARIANT(yaml_parser_initialize(&parser) == 1);
    yaml_parser_set_input_string(&parser, yaml.len != 0 ? yaml.data : (const uint8_t *)"",
                                 yaml.len);
    if (yaml_parser_load(&parser, &file.document) != 1) {
        err = refuse_syntax(&file, &parser);
        goto out_parser;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&file.document);
    if (root == NULL)
        goto out_document;
    err = top_level(&file, root);
    if (err != FELIX_OK)
        goto out_document;

    yaml_document_delete(&file.document);
    if (yaml_parser_load(&parser, &file.document) != 1) {
        err = refuse_syntax(&file, &parser);
        goto out_parser;
    }
    root = yaml_document_get_root_node(&file.document);
    if (root != NULL)
        err = refuse(&file, root, FELIX_INVALID_ARGUMENT, "only one YAML document is allowed");
out_document:
    yaml_document_delete(&file.document);
out_parser:
    yaml_parser_delete(&parser);
    return err;
}

void scope_free(struct scope_item *items, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(items[i].tenant);
        free(items[i].space);
        free(items[i].name);
    }
    free(items);
}

/* A key whose text, escapes included, could be longer than the 1024 characters that YAML looks
 * ahead for the colon has to be announced. */
#define PLAIN_KEY_BYTES_MAX 128u

static void print_name(const char *name, const char *indent, const char *end, struct text *out) {
    bool announced = strlen(name) > PLAIN_KEY_BYTES_MAX;
    text_add(out, indent);
    text_add(out, announced ? "? " : "");
    text_quoted(out, slice_str(name));
    if (announced) {
        text_char(out, '\n');
        text_add(out, indent);
    }
    text_add(out, end);
}

static void print_stream_settings(const struct scope_item *item, struct text *out) {
    text_printf(out, ": {durable: %s", item->durable ? "true" : "false");
    if (item->retention_bytes != 0)
        text_printf(out, ", retention_bytes: %llu", (unsigned long long)item->retention_bytes);
    if (item->retention_seconds != 0)
        text_printf(out, ", retention_seconds: %llu", (unsigned long long)item->retention_seconds);
    text_add(out, "}\n");
}

/* Items are in the order of the file, so what is alike below one parent follows each other. */
void scope_print_yaml(const struct scope_item *items, size_t count, struct text *out) {
    if (count == 0)
        return;
    text_add(out, "\n# Scope\nscope:\n  tenants:\n");
    for (size_t i = 0; i < count; i++) {
        const struct scope_item *item = &items[i];
        bool first = i == 0 || items[i - 1].kind != item->kind;
        switch (item->kind) {
        case SCOPE_TENANT: {
            bool empty = i + 1 == count || items[i + 1].kind == SCOPE_TENANT;
            print_name(item->tenant, "    ", empty ? ":\n" : ":\n      namespaces:\n", out);
            break;
        }
        case SCOPE_NAMESPACE:
            print_name(item->space, "        ", ":\n", out);
            break;
        case SCOPE_STREAM:
            text_add(out, first ? "          streams:\n" : "");
            print_name(item->name, "            ", "", out);
            print_stream_settings(item, out);
            break;
        case SCOPE_CACHE:
            text_add(out, first ? "          caches:\n" : "");
            print_name(item->name, "            ", "", out);
            text_printf(out, ": {max_bytes: %llu}\n", (unsigned long long)item->max_bytes);
            break;
        }
    }
}
