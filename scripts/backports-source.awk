# Prints the apt source of CODENAME-backports for this machine, derived from the sources it has.
#
#   awk -v codename=bookworm -f scripts/backports-source.awk FILE...
#
# The archive that serves CODENAME itself also serves CODENAME-backports, so its entry is repeated
# with another suite: same mirror, same key, same options (a company mirror, a snapshot and a proxy
# by URI all keep working). Files named *.sources hold deb822 stanzas, all others hold one-line
# entries. The first enabled binary entry of CODENAME with the component "main" wins.
#
# Exit status: 0 printed, 3 CODENAME-backports is configured already, 4 no entry of CODENAME found.

BEGIN {
    wanted = codename
    target = codename "-backports"
}

FNR == 1 {
    end_stanza()
    deb822 = FILENAME ~ /\.sources$/
}

{ sub(/\r$/, "") }

deb822 && /^#/ { next }
deb822 && /^[ \t]*$/ { end_stanza(); next }
deb822 && /^[ \t]/ { # continuation, for example the lines of an embedded key
    if (field != "")
        value[field] = value[field] "\n" $0
    next
}
deb822 {
    colon = index($0, ":")
    if (colon == 0)
        next
    field = tolower(substr($0, 1, colon - 1))
    name[field] = substr($0, 1, colon - 1)
    value[field] = trim(substr($0, colon + 1))
    order[++fields] = field
    next
}
/^[ \t]*deb[ \t]/ { one_line($0) }

END {
    end_stanza()
    if (configured)
        exit 3
    if (found == "")
        exit 4
    printf "%s", found
}

function trim(text) {
    gsub(/^[ \t]+|[ \t]+$/, "", text)
    return text
}

function has_word(text, word,    words, count, i) {
    count = split(text, words, /[ \t\n]+/)
    for (i = 1; i <= count; i++)
        if (words[i] == word)
            return 1
    return 0
}

function is_off(text) {
    return tolower(text) ~ /^(no|false|0|off|disable|without)$/
}

function end_stanza(    i, field_name, out) {
    if (fields && !is_off(value["enabled"]) && has_word(value["types"], "deb")) {
        if (has_word(value["suites"], target))
            configured = 1
        if (found == "" && has_word(value["suites"], wanted) && has_word(value["components"], "main") &&
            value["uris"] !~ /^cdrom:/) {
            out = "Types: deb\n"
            for (i = 1; i <= fields; i++) {
                field_name = order[i]
                if (field_name == "suites")
                    out = out name[field_name] ": " target "\n"
                else if (field_name == "components")
                    out = out name[field_name] ": main\n"
                else if (field_name != "types" && field_name != "x-repolib-name")
                    out = out name[field_name] ": " value[field_name] "\n"
            }
            found = out
        }
    }
    split("", name)
    split("", value)
    split("", order)
    fields = 0
    field = ""
}

# deb [ signed-by=/a.gpg arch=amd64,arm64 ] http://mirror/debian bookworm main contrib # comment
function one_line(line,    options, count, words, i, eq, key, out) {
    sub(/^[ \t]*deb[ \t]+/, "", line)
    options = ""
    if (line ~ /^\[/) {
        options = trim(substr(line, 2, index(line, "]") - 2))
        line = trim(substr(line, index(line, "]") + 1))
    }
    sub(/[ \t]#.*/, "", line)
    count = split(line, words, /[ \t]+/)
    if (words[2] == target)
        configured = 1
    if (found != "" || words[2] != wanted || words[1] ~ /^cdrom:/)
        return
    sub(/^[^ \t]+[ \t]+[^ \t]+[ \t]*/, "", line)
    if (!has_word(line, "main"))
        return
    out = "Types: deb\nURIs: " words[1] "\nSuites: " target "\nComponents: main\n"
    count = split(options, words, /[ \t]+/)
    for (i = 1; i <= count; i++) {
        eq = index(words[i], "=")
        if (eq == 0)
            continue
        key = option_field(substr(words[i], 1, eq - 1))
        sub(/^[^=]*=/, "", words[i])
        if (key != "Signed-By" || words[i] !~ /^\//)
            gsub(/,/, " ", words[i])
        out = out key ": " words[i] "\n"
    }
    found = out
}

# The deb822 name of a one-line option: sources.list(5) lists the pairs.
function option_field(option,    parts, count, i, out) {
    if (option == "arch")
        return "Architectures"
    if (option == "lang")
        return "Languages"
    if (option == "target")
        return "Targets"
    count = split(option, parts, /-/)
    for (i = 1; i <= count; i++)
        out = out (i > 1 ? "-" : "") toupper(substr(parts[i], 1, 1)) substr(parts[i], 2)
    return out
}
