/*
 * felix token mint, inspect, keygen: tokens without a control plane.
 *
 * These work on files and never connect. Secrets (keys, and tokens given to --out) are written
 * with mode 0600; what goes to standard output is what the user asked for and nothing else.
 */
#include "cli/cli.h"

#include "auth/file.h"
#include "auth/mint.h"
#include "auth/token.h"
#include "base/check.h"
#include "base/clock.h"
#include "wire/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t wall_now_s(void) {
    return (int64_t)(clock_wall_ns() / NS_PER_S);
}

static int token_failed(const char *what, const struct felix_error *error) {
    out_error("%s: %s", what, error->text);
    return EXIT_USAGE;
}

int cmd_token_keygen(struct cli *cli) {
    const char *path = NULL, *kid = NULL, *jwks_path = NULL;
    const struct arg_option options[] = {
        {.name = "--out",
         .alias = "--key",
         .type = ARG_TEXT,
         .value = &path,
         .meta = "FILE",
         .help = "where the secret key goes (mode 0600); required"},
        {.name = "--kid",
         .type = ARG_TEXT,
         .value = &kid,
         .meta = "ID",
         .help = "name of the key (random)"},
        {.name = "--jwks",
         .type = ARG_TEXT,
         .value = &jwks_path,
         .meta = "FILE",
         .help = "write the public half there instead of printing it"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix token keygen",
        .summary = "make a signing key",
        .usage = "--out FILE",
        .text = "Writes an Ed25519 key and prints its public half, which a broker takes as\n"
                "FELIX_AUTH_JWKS_FILE: for one tenant with --tenant, else for every tenant.",
        .examples = "  felix token keygen --out signing.jwk --tenant t1 > jwks.json",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 0);
    if (status != CLI_GO_ON)
        return status;
    if (path == NULL)
        return out_usage(help.name, "--out FILE is missing: where the secret key goes");
    struct mint_key key;
    struct felix_error error;
    if (mint_key_generate(kid, &key, &error) != FELIX_OK)
        return token_failed("no key was made", &error);
    char *jwks = NULL;
    if (mint_key_jwks(&key, cli->tenant, &jwks, &error) != FELIX_OK ||
        mint_key_save(&key, path, &error) != FELIX_OK) {
        status = token_failed("no key was written", &error);
        goto out;
    }
    status = EXIT_DONE;
    if (jwks_path == NULL)
        (void)puts(jwks);
    else if (auth_file_write(jwks_path, slice_str(jwks), 0644, &error) != FELIX_OK)
        status = token_failed("the key was written, its public half was not", &error);
    if (status == EXIT_DONE && !cli->quiet && out_errors_are_terminal())
        (void)fprintf(stderr, "key %s is in %s: keep it secret\n", key.kid, path);
out:
    free(jwks);
    mint_key_wipe(&key);
    return status;
}

/* The four permissions of the data plane on everything that a tenant has. Owned by the caller. */
static void add_all_permissions(struct arg_list *perms, const char *tenant, char *ret_owned[4]) {
    static const struct {
        const char *action;
        const char *kind;
    } rows[4] = {{"stream.publish", "stream"},
                 {"stream.subscribe", "stream"},
                 {"cache.read", "cache"},
                 {"cache.write", "cache"}};
    for (size_t i = 0; i < 4 && perms->count < ARG_LIST_MAX; i++) {
        struct text text = {0};
        text_printf(&text, "%s:%s:%s/*", rows[i].action, rows[i].kind, tenant);
        ret_owned[i] = text_take(&text);
        perms->items[perms->count++] = ret_owned[i];
    }
}

static int write_token(const struct cli *cli, const char *token, const char *path) {
    if (path == NULL) {
        (void)puts(token);
        return EXIT_DONE;
    }
    struct text line = {0};
    text_printf(&line, "%s\n", token);
    struct felix_error error;
    enum felix_err err = auth_file_write(path, slice_of(text_str(&line), line.len), 0600, &error);
    text_deinit(&line);
    if (err != FELIX_OK)
        return token_failed("the token was not written", &error);
    if (!cli->quiet && out_is_terminal())
        (void)printf("token written to %s\n", path);
    return EXIT_DONE;
}

int cmd_token_mint(struct cli *cli) {
    const char *subject = NULL, *key_path = NULL, *path = NULL;
    uint64_t ttl_ns = 3600 * NS_PER_S;
    struct arg_list perms = {.count = 0};
    bool all = false;
    const struct arg_option options[] = {
        {.name = "--key",
         .type = ARG_TEXT,
         .value = &key_path,
         .meta = "FILE",
         .help = "signing key, made by 'felix token keygen'; required"},
        {.name = "--subject",
         .type = ARG_TEXT,
         .value = &subject,
         .meta = "NAME",
         .help = "who the token is for; required"},
        {.name = "--ttl",
         .type = ARG_DURATION,
         .value = &ttl_ns,
         .min = NS_PER_S,
         .max = (uint64_t)MINT_TTL_S_MAX * NS_PER_S,
         .meta = "TIME",
         .help = "how long it is valid: 15m, 1h, 7d (1h)"},
        {.name = "--perm",
         .type = ARG_LIST,
         .value = &perms,
         .meta = "ACTION:OBJECT",
         .help = "a permission; may be given several times"},
        {.name = "--all",
         .type = ARG_FLAG,
         .value = &all,
         .help = "publish, subscribe, read and write everything of the tenant"},
        {.name = "--out",
         .type = ARG_TEXT,
         .value = &path,
         .meta = "FILE",
         .help = "write the token there (mode 0600) instead of printing it"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix token mint",
        .summary = "sign a token",
        .usage = "--key FILE --tenant NAME --subject NAME --perm ACTION:OBJECT",
        .text =
            "Actions are stream.publish, stream.subscribe, cache.read and cache.write; objects\n"
            "are stream:TENANT/NAMESPACE/STREAM and cache:TENANT/NAMESPACE/CACHE, where * stands\n"
            "for anything.",
        .examples = "  felix token mint --key signing.jwk --tenant t1 --subject p:alice \\\n"
                    "      --perm 'stream.publish:stream:t1/default/orders' --out alice.token",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 0);
    if (status != CLI_GO_ON)
        return status;
    if (key_path == NULL || subject == NULL || cli->tenant == NULL)
        return out_usage(help.name, key_path == NULL  ? "--key FILE is missing"
                                    : subject == NULL ? "--subject NAME is missing"
                                                      : "--tenant NAME is missing");
    if (perms.count == 0 && !all)
        return out_usage(help.name, "no permission is given: name them with --perm, or say --all");
    char *owned[4] = {NULL};
    if (all)
        add_all_permissions(&perms, cli->tenant, owned);

    struct mint_key key = {0};
    struct felix_error error;
    struct mint_claims claims = {
        .tenant = cli->tenant,
        .subject = subject,
        .ttl_s = (int64_t)(ttl_ns / NS_PER_S),
        .perms = perms.items,
        .perms_count = perms.count,
    };
    char *token = NULL;
    if (mint_key_load(key_path, &key, &error) != FELIX_OK ||
        token_mint(&key, &claims, wall_now_s(), &token, &error) != FELIX_OK)
        status = token_failed("no token was made", &error);
    else
        status = write_token(cli, token, path);
    mint_key_wipe(&key);
    free(token);
    for (size_t i = 0; i < 4; i++)
        free(owned[i]);
    return status;
}

/* ---- inspect ---- */

struct validity {
    bool has_exp;
    bool has_nbf;
    int64_t exp_s;
    int64_t nbf_s;
    bool now; /* valid by its times */
    char words[200];
};

struct utc_text {
    char text[40];
};

static struct utc_text utc(int64_t seconds) {
    struct utc_text t = {"a time that no calendar knows"};
    time_t when = (time_t)seconds;
    struct tm tm;
    if (gmtime_r(&when, &tm) != NULL)
        (void)strftime(t.text, sizeof t.text, "%Y-%m-%d %H:%M:%S UTC", &tm);
    return t;
}

/* Calls `each` for every member of a JSON object with the raw text of its value. */
typedef void (*member_fn)(void *context, struct slice name, struct slice value);

static void each_member(const char *object, member_fn each, void *context) {
    struct json j = json_open(slice_str(object));
    struct json_string name;
    bool first = true;
    if (!json_object_begin(&j))
        return;
    while (json_member(&j, &first, &name)) {
        (void)json_peek(&j); /* moves over the space before the value */
        const uint8_t *start = j.at;
        if (!json_skip(&j))
            return;
        each(context, name.raw, slice_of(start, (size_t)(j.at - start)));
    }
}

static void read_time(void *context, struct slice name, struct slice value) {
    struct validity *v = context;
    struct json j = json_open(value);
    int64_t seconds;
    if (!slice_is(name, "exp") && !slice_is(name, "nbf"))
        return;
    if (!json_take_i64(&j, &seconds))
        return;
    if (slice_is(name, "exp")) {
        v->has_exp = true;
        v->exp_s = seconds;
    } else {
        v->has_nbf = true;
        v->nbf_s = seconds;
    }
}

static uint64_t distance(int64_t a, int64_t b) {
    return a > b ? (uint64_t)a - (uint64_t)b : (uint64_t)b - (uint64_t)a;
}

static void judge_validity(const char *claims, int64_t now_s, struct validity *ret) {
    each_member(claims, read_time, ret);
    char *words = ret->words;
    size_t size = sizeof ret->words;
    if (!ret->has_exp) {
        (void)snprintf(words, size, "never valid: it has no time of expiry");
    } else if (ret->exp_s <= now_s) {
        (void)snprintf(words, size, "expired %s ago, at %s",
                       out_span(distance(now_s, ret->exp_s)).text, utc(ret->exp_s).text);
    } else if (ret->has_nbf && ret->nbf_s > now_s) {
        (void)snprintf(words, size, "not valid before %s, in %s", utc(ret->nbf_s).text,
                       out_span(distance(ret->nbf_s, now_s)).text);
    } else {
        ret->now = true;
        (void)snprintf(words, size, "valid for %s, until %s",
                       out_span(distance(ret->exp_s, now_s)).text, utc(ret->exp_s).text);
    }
}

static void print_member(void *context, struct slice name, struct slice value) {
    struct text *text = context;
    struct json j = json_open(value);
    int64_t seconds;
    text_printf(text, "  %-8.*s ", (int)name.len, (const char *)name.data);
    bool is_time = slice_is(name, "exp") || slice_is(name, "nbf") || slice_is(name, "iat");
    if (is_time && json_take_i64(&j, &seconds)) {
        text_printf(text, "%" PRId64 "  (%s)\n", seconds, utc(seconds).text);
        return;
    }
    if (json_peek(&j) != JSON_ARRAY) {
        out_printable(text, value);
        text_char(text, '\n');
        return;
    }
    bool first = true, line = false;
    (void)json_array_begin(&j);
    while (json_element(&j, &first)) {
        (void)json_peek(&j);
        const uint8_t *start = j.at;
        if (!json_skip(&j))
            break;
        if (line)
            text_add(text, "           ");
        out_printable(text, slice_of(start, (size_t)(j.at - start)));
        text_char(text, '\n');
        line = true;
    }
    if (!line)
        text_add(text, "[]\n");
}

/* Verify the signature with the keys of a file. Returns the words, and CLI_GO_ON or an exit code
 * when the file cannot be used. */
static int verify(const char *jwks_path, const struct token_offer *offer, bool *ret_good,
                  const char **ret_words) {
    struct auth_keyset *keys;
    struct felix_error error;
    if (auth_keyset_load_file(jwks_path, &keys, &error) != FELIX_OK)
        return token_failed("the keys cannot be used", &error);
    struct principal *principal = NULL;
    enum felix_err err = token_verify(keys, offer, wall_now_s(), TOKEN_LEEWAY_S, &principal);
    *ret_good = err == FELIX_OK;
    *ret_words =
        err == FELIX_OK ? "good, a broker with these keys accepts the token" : err_text(err);
    if (err == FELIX_OK)
        principal_unref(principal);
    auth_keyset_unref(keys);
    return CLI_GO_ON;
}

/* The token from a literal argument, a file, or standard input, without surrounding space. */
static enum felix_err get_token(const char *operand, struct text *ret, struct felix_error *reterr) {
    struct jws jws;
    if (operand != NULL && jws_split(slice_str(operand), &jws)) {
        text_add(ret, operand);
        return FELIX_OK;
    }
    struct text content = {0};
    enum felix_err err = cli_read_file(operand != NULL ? operand : "-", &content, reterr);
    if (err == FELIX_OK) {
        const char *at = text_str(&content);
        at += strspn(at, " \t\r\n");
        text_bytes(ret, slice_of(at, strcspn(at, " \t\r\n")));
    }
    text_deinit(&content);
    return err;
}

static void read_tenant(void *context, struct slice name, struct slice value) {
    struct slice *tenant = context;
    if (slice_is(name, "tid") && value.len >= 2)
        *tenant = slice_of(value.data + 1, value.len - 2);
}

struct inspection {
    struct token_text parts;
    struct validity validity;
    bool verified; /* asked for and done */
    bool signature_good;
    const char *signature_words;
};

static void print_inspection(const struct cli *cli, const struct inspection *i) {
    struct text text = {0};
    if (cli->json) {
        text_printf(&text,
                    "{\"header\":%s,\"claims\":%s,\"valid_now\":%s,\"validity\":", i->parts.header,
                    i->parts.claims, i->validity.now ? "true" : "false");
        text_quoted(&text, slice_str(i->validity.words));
        if (i->verified)
            text_printf(&text, ",\"accepted\":%s", i->signature_good ? "true" : "false");
        text_add(&text, "}\n");
    } else {
        text_add(&text, "header\n");
        each_member(i->parts.header, print_member, &text);
        text_add(&text, "claims\n");
        each_member(i->parts.claims, print_member, &text);
        text_printf(&text, "validity\n  %s\nsignature\n  %s\n", i->validity.words,
                    i->verified ? i->signature_words : "not checked; --jwks FILE does it");
    }
    (void)fwrite(text_str(&text), 1, text.len, stdout);
    text_deinit(&text);
}

int cmd_token_inspect(struct cli *cli) {
    const char *jwks_path = NULL;
    const struct arg_option options[] = {
        {.name = "--jwks",
         .type = ARG_TEXT,
         .value = &jwks_path,
         .meta = "FILE",
         .help = "also verify it with these public keys"},
        {.name = NULL},
    };
    const struct command_help help = {
        .name = "felix token inspect",
        .summary = "show what a token says",
        .usage = "[TOKEN|FILE]",
        .text =
            "Without an argument the token is read from standard input. Exits with 0 whatever the\n"
            "token says; with --jwks, 4 when a broker would refuse it.",
        .examples = "  felix token inspect alice.token\n"
                    "  felix token inspect alice.token --jwks jwks.json --json",
    };
    struct args args = {.options = options};
    int status = cli_parse(cli, &args, &help, 0, 1);
    if (status != CLI_GO_ON)
        return status;
    struct text token = {0};
    struct felix_error error;
    struct inspection i = {.verified = false};
    if (get_token(args.operands_count == 1 ? args.operands[0] : NULL, &token, &error) != FELIX_OK) {
        status = token_failed("no token", &error);
        goto out;
    }
    struct slice bytes = slice_of(text_str(&token), token.len);
    if (token_inspect(bytes, &i.parts) != FELIX_OK) {
        out_error("this is no token: it must be three parts of base64url, split by dots");
        status = EXIT_USAGE;
        goto out;
    }
    judge_validity(i.parts.claims, wall_now_s(), &i.validity);
    if (jwks_path != NULL) {
        struct token_offer offer = {.token = bytes};
        each_member(i.parts.claims, read_tenant, &offer.tenant);
        if (cli->tenant != NULL)
            offer.tenant = slice_str(cli->tenant);
        status = verify(jwks_path, &offer, &i.signature_good, &i.signature_words);
        if (status != CLI_GO_ON)
            goto out;
        i.verified = true;
    }
    print_inspection(cli, &i);
    status = i.verified && !i.signature_good ? EXIT_REFUSED : EXIT_DONE;
out:
    token_text_deinit(&i.parts);
    text_deinit(&token);
    return status;
}
