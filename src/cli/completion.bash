# shellcheck shell=bash
# Completion of felix for bash: commands, options, and the words and files that options take. All of
# it is what felix says in its own help, so there is no second list to keep.

# Prints "OPTION META" for each option of the help text on standard input; META may be missing.
_felix_options() {
    sed -n 's/^  \(-[a-z], \)\{0,1\}\(--[a-z-]*\)\( \([^ ]\{1,\}\)\)\{0,1\}\( .*\)\{0,1\}$/\2 \4/p'
}

# Prints the commands of the overview on standard input, one a line, of one or two words.
_felix_commands() {
    sed -n '/^commands:/,/^$/s/^  \([a-z]\{1,\}\( [a-z]\{1,\}\)\{0,1\}\)  .*/\1/p'
}

# Prints what stands for the value of option $1 in the list $2.
_felix_meta() {
    local option meta
    while read -r option meta; do
        [ "$option" = "$1" ] && printf '%s' "$meta"
    done <<<"$2"
}

# Fills COMPREPLY with those of the words in $1, one a line, that begin with $2.
_felix_reply() {
    local word
    while read -r word; do
        [ -n "$word" ] && [[ $word == "$2"* ]] && COMPREPLY+=("$word")
    done <<<"$1"
}

# Candidates for the value that META stands for.
_felix_value() {
    case $1 in
        *'|'*) _felix_reply "$(tr '|' '\n' <<<"$1" | grep '^[a-z]')" "$2" ;;
        FILE | DIR) compopt -o default 2>/dev/null ;;
    esac
}

_felix() {
    local program=$1 cur=${COMP_WORDS[COMP_CWORD]} overview commands options help word pending='' i
    local -a named=()
    COMPREPLY=()
    overview=$("$program" help 2>/dev/null) || return
    commands=$(_felix_commands <<<"$overview")
    options=$(_felix_options <<<"$overview")

    # Walk over the words before the cursor: which command is it, and is a value expected? The
    # line editor splits "--option=value" into three words.
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [ "$word" = "=" ] || [ "$word" = ":" ]; then
            continue
        elif [ -n "$pending" ]; then
            pending=''
        elif [[ $word == -* ]]; then
            pending=$(_felix_meta "$word" "$options")
        elif [ "$word" = help ] && [ ${#named[@]} -eq 0 ]; then
            continue
        elif [ ${#named[@]} -eq 0 ] || { [ ${#named[@]} -eq 1 ] && grep -q "^${named[0]} " <<<"$commands"; }; then
            named+=("$word")
            if grep -qx "${named[*]}" <<<"$commands"; then
                help=$("$program" help "${named[@]}" 2>/dev/null)
                options=$(_felix_options <<<"$help")
            fi
        fi
    done

    [ "$cur" = "=" ] && cur=''
    if [ -n "$pending" ]; then
        _felix_value "$pending" "$cur"
    elif [[ $cur == -* ]]; then
        _felix_reply "$(cut -d ' ' -f 1 <<<"$options")" "$cur"
    elif [ ${#named[@]} -eq 0 ]; then
        _felix_reply "$(cut -d ' ' -f 1 <<<"$commands" | uniq)" "$cur"
    elif [ -z "${help:-}" ]; then
        _felix_reply "$(sed -n "s/^${named[0]} //p" <<<"$commands")" "$cur"
    elif [[ $help == *'FILE]'* ]] || [[ $help == *"usage: felix log"* ]]; then
        compopt -o default 2>/dev/null
    fi
}

complete -F _felix felix
