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
#include "cli/token_view.h"

#include <stdlib.h>
#include <string.h>

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

#define ALL_PERMISSIONS 5u

/* What a broker asks for, on everything that a tenant has. Owned by the caller. */
static void add_all_permissions(struct arg_list *perms, const char *tenant,
                                char *ret_owned[ALL_PERMISSIONS]) {
    static const struct {
        const char *action;
        const char *kind;
    } rows[ALL_PERMISSIONS] = {{"stream.publish", "stream"},
                               {"stream.subscribe", "stream"},
                               {"stream.manage", "stream"},
                               {"cache.read", "cache"},
                               {"cache.write", "cache"}};
    for (size_t i = 0; i < ALL_PERMISSIONS && perms->count < ARG_LIST_MAX; i++) {
        struct text text = {0};
        text_printf(&text, "%s:%s:%s/*", rows[i].action, rows[i].kind, tenant);
        ret_owned[i] = text_take(&text);
        perms->items[perms->count++] = ret_owned[i];
    }
}

static int write_token(const struct cli *cli, const char *token, const char *path) {
    if (path == NULL) {
        (void)printf(cli->json ? "{\"token\":\"%s\"}\n" : "%s\n", token);
        return EXIT_DONE;
    }
    struct text line = {0};
    text_printf(&line, "%s\n", token);
    struct felix_error error;
    enum felix_err err = auth_file_write(path, slice_of(text_str(&line), line.len), 0600, &error);
    text_deinit(&line);
    if (err != FELIX_OK)
        return token_failed("the token was not written", &error);
    if (!cli->quiet && out_errors_are_terminal())
        (void)fprintf(stderr, "the token is in %s\n", path);
    return EXIT_DONE;
}

static int mint(const struct cli *cli, const char *key_path, const struct mint_claims *claims,
                const char *path) {
    struct mint_key key = {0};
    struct felix_error error;
    char *token = NULL;
    int status;
    if (mint_key_load(key_path, &key, &error) != FELIX_OK ||
        token_mint(&key, claims, wall_now_s(), &token, &error) != FELIX_OK)
        status = token_failed("no token was made", &error);
    else
        status = write_token(cli, token, path);
    mint_key_wipe(&key);
    free(token);
    return status;
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
         .help = "publish, subscribe, manage, read and write all of the tenant"},
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
            "Actions are stream.publish, stream.subscribe, stream.manage, cache.read, cache.write; "
            "objects\n"
            "are stream:TENANT/NAMESPACE/STREAM and cache:TENANT/NAMESPACE/CACHE, where * stands\n"
            "for anything. A development broker keeps its key as signing-key.jwk in its data\n"
            "directory.",
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
    char *owned[ALL_PERMISSIONS] = {NULL};
    if (all)
        add_all_permissions(&perms, cli->tenant, owned);

    struct mint_claims claims = {
        .tenant = cli->tenant,
        .subject = subject,
        .ttl_s = (int64_t)(ttl_ns / NS_PER_S),
        .perms = perms.items,
        .perms_count = perms.count,
    };
    status = mint(cli, key_path, &claims, path);
    for (size_t i = 0; i < ALL_PERMISSIONS; i++)
        free(owned[i]);
    return status;
}

/* ---- inspect ---- */

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

struct inspection {
    struct token_text parts;
    struct token_validity validity;
    bool verified; /* asked for and done */
    bool signature_good;
    const char *signature_words;
};

/* A token's parts may hold line breaks between their values; --json is one line. */
static void add_on_one_line(struct text *text, const char *json) {
    for (; *json != '\0'; json++)
        text_char(text, *json == '\n' || *json == '\r' ? ' ' : *json);
}

static void print_inspection(const struct cli *cli, const struct inspection *i) {
    struct text text = {0};
    if (cli->json) {
        text_add(&text, "{\"header\":");
        add_on_one_line(&text, i->parts.header);
        text_add(&text, ",\"claims\":");
        add_on_one_line(&text, i->parts.claims);
        text_printf(&text, ",\"valid_now\":%s,\"validity\":", i->validity.now ? "true" : "false");
        text_quoted(&text, slice_str(i->validity.words));
        if (i->verified)
            text_printf(&text, ",\"accepted\":%s", i->signature_good ? "true" : "false");
        text_add(&text, "}\n");
    } else {
        text_add(&text, "header\n");
        token_members(i->parts.header, &text);
        text_add(&text, "claims\n");
        token_members(i->parts.claims, &text);
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
    i.validity = token_validity(i.parts.claims, wall_now_s());
    if (jwks_path != NULL) {
        struct token_offer offer = {.token = bytes, .tenant = token_claim(i.parts.claims, "tid")};
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
