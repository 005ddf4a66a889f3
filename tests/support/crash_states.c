/*
 * Everything in doubt is a choice with a number of options, of which the first is "none of it" and
 * the last "all of it". A state is one option of each choice.
 */
#include "support/crash_states.h"

#include "base/check.h"
#include "support/crash_follow.h"

#include <stdlib.h>

#define SUBSET_WRITES_MAX 5u /* of one sector: all subsets of that many, then a selection */
#define TORN_LENGTHS_MAX 6u  /* between two lengths */

/* A choice; the options of a sector are its contents, of a file its lengths. */
struct choice {
    enum { CHOICE_SECTOR, CHOICE_LENGTH, CHOICE_NAME } kind;
    size_t file, index; /* index: the sector, or the name change */
    uint32_t options, option;
    uint8_t (*contents)[CRASH_SECTOR_BYTES];
    uint64_t *lengths;
};

struct crash_states {
    struct crash_follow follow;
    struct choice *choices;
    size_t choice_count, choice_capacity;
    bool chosen; /* the choices are those of this position */
    /* of the state that is built */
    struct memory_disk state;
    struct names names;
    crash_visit visit;
    void *user;
    size_t budget;
};

struct crash_states *crash_states_new(const struct crash_disk *trace) {
    struct crash_states *states = xcalloc(1, sizeof *states);
    crash_follow_init(&states->follow, trace);
    memory_disk_init(&states->state);
    return states;
}

static void forget_choices(struct crash_states *states) {
    for (size_t i = 0; i < states->choice_count; i++) {
        free(states->choices[i].contents);
        free(states->choices[i].lengths);
    }
    states->choice_count = 0;
    states->chosen = false;
}

void crash_states_free(struct crash_states *states) {
    crash_follow_deinit(&states->follow);
    forget_choices(states);
    free(states->choices);
    free(states->names.list);
    memory_disk_deinit(&states->state);
    free(states);
}

const struct crash_event *crash_states_step(struct crash_states *states) {
    const struct crash_event *event = crash_follow_step(&states->follow);
    if (event != NULL && event->kind != CRASH_MARK && event->kind != CRASH_SYNC_BEGIN)
        forget_choices(states);
    return event;
}

/* ---- choices ---- */

static struct choice *add_choice(struct crash_states *states, struct choice choice) {
    if (states->choice_count == states->choice_capacity) {
        states->choice_capacity = states->choice_capacity == 0 ? 32 : states->choice_capacity * 2;
        states->choices =
            xrealloc(states->choices, states->choice_capacity * sizeof *states->choices);
    }
    states->choices[states->choice_count] = choice;
    return &states->choices[states->choice_count++];
}

/* The content of a sector when of its pieces in doubt those in `kept` arrived (bit by bit, the
 * ones beyond the 64th as the last). */
static void sector_content(const struct sector *sector, uint64_t kept,
                           uint8_t content[CRASH_SECTOR_BYTES]) {
    memcpy(content, sector->safe, CRASH_SECTOR_BYTES);
    size_t doubtful = 0;
    for (size_t i = 0; i < sector->count; i++) {
        size_t bit = doubtful < 63 ? doubtful : 63;
        bool safe = sector->pieces[i].certainty == SAFE;
        if (safe || (kept >> bit & 1) != 0)
            piece_apply(content, &sector->pieces[i]);
        doubtful += !safe;
    }
}

/* Adds the content that `kept` gives unless it is there; the last one added stays last. */
static void add_content(struct choice *choice, const struct sector *sector, uint64_t kept) {
    uint8_t content[CRASH_SECTOR_BYTES];
    sector_content(sector, kept, content);
    for (uint32_t i = 0; i < choice->options; i++) {
        if (memcmp(choice->contents[i], content, CRASH_SECTOR_BYTES) == 0)
            return;
    }
    memcpy(choice->contents[choice->options++], content, CRASH_SECTOR_BYTES);
}

static void choose_sector(struct crash_states *states, size_t file, size_t index) {
    const struct sector *sector = &states->follow.files[file].sectors[index];
    size_t doubtful = 0;
    for (size_t i = 0; i < sector->count; i++)
        doubtful += sector->pieces[i].certainty != SAFE;
    if (doubtful == 0)
        return;
    size_t bits = doubtful < 63 ? doubtful : 63;
    uint64_t all = UINT64_MAX >> (64 - bits);
    if (doubtful > 63)
        all = UINT64_MAX;
    bool subsets = doubtful <= SUBSET_WRITES_MAX;
    size_t room = subsets ? (size_t)1 << doubtful : 3 * bits + 3;
    struct choice choice = {
        .kind = CHOICE_SECTOR,
        .file = file,
        .index = index,
        .contents = xmalloc(room * sizeof *choice.contents),
    };
    if (subsets) {
        for (uint64_t kept = 0; kept <= all; kept++)
            add_content(&choice, sector, kept);
    } else {
        for (size_t i = 0; i <= bits; i++) {
            add_content(&choice, sector, ((uint64_t)1 << i) - 1);
            add_content(&choice, sector, (uint64_t)1 << i);
            add_content(&choice, sector, all & ~((uint64_t)1 << i));
        }
        add_content(&choice, sector, all);
    }
    /* "All of it" is the last option also when an earlier one looks the same. */
    uint8_t newest[CRASH_SECTOR_BYTES];
    sector_content(sector, all, newest);
    for (uint32_t i = 0; i + 1 < choice.options; i++) {
        if (memcmp(choice.contents[i], newest, CRASH_SECTOR_BYTES) == 0 && i > 0) {
            memcpy(choice.contents[i], choice.contents[choice.options - 1], CRASH_SECTOR_BYTES);
            memcpy(choice.contents[choice.options - 1], newest, CRASH_SECTOR_BYTES);
        }
    }
    add_choice(states, choice);
}

static void add_length_option(struct choice *choice, uint64_t bytes) {
    for (uint32_t i = 0; i < choice->options; i++) {
        if (choice->lengths[i] == bytes)
            return;
    }
    choice->lengths[choice->options++] = bytes;
}

static void choose_length(struct crash_states *states, size_t number) {
    const struct followed *file = &states->follow.files[number];
    if (file->length_count < 2)
        return;
    struct choice choice = {
        .kind = CHOICE_LENGTH,
        .file = number,
        .lengths = xmalloc(file->length_count * (TORN_LENGTHS_MAX + 2) * sizeof *choice.lengths),
    };
    add_length_option(&choice, file->lengths[0].bytes);
    for (size_t i = 1; i < file->length_count; i++) {
        uint64_t old = file->lengths[i - 1].bytes;
        uint64_t sectors =
            (file->lengths[i].bytes - 1) / CRASH_SECTOR_BYTES - old / CRASH_SECTOR_BYTES;
        uint64_t stride = sectors / TORN_LENGTHS_MAX + 1;
        for (uint64_t s = 1; file->lengths[i].written && s <= sectors; s += stride)
            add_length_option(&choice, (old / CRASH_SECTOR_BYTES + s) * CRASH_SECTOR_BYTES);
        if (i + 1 < file->length_count)
            add_length_option(&choice, file->lengths[i].bytes);
    }
    add_length_option(&choice, followed_length(file));
    if (choice.options > 1)
        add_choice(states, choice);
    else
        free(choice.lengths);
}

static void choose(struct crash_states *states) {
    if (states->chosen)
        return;
    states->chosen = true;
    for (size_t i = 0; i < states->follow.change_count; i++) {
        if (!states->follow.changes[i].safe)
            add_choice(states, (struct choice){.kind = CHOICE_NAME, .index = i, .options = 2});
    }
    for (size_t i = 0; i < states->follow.file_count; i++) {
        choose_length(states, i);
        for (size_t j = 0; j < states->follow.files[i].sector_count; j++)
            choose_sector(states, i, j);
    }
}

/* ---- states ---- */

static void build_file(struct crash_states *states, const struct memory_name *name) {
    const struct followed *from = &states->follow.files[name->file];
    int number = memory_disk_add_file(&states->state, name->path, slice_of(NULL, 0), 0);
    struct memory_file *file = &states->state.files[number];
    uint64_t length = from->lengths[0].bytes;
    for (size_t i = 0; i < from->sector_count; i++) {
        struct slice sector = slice_of(from->sectors[i].safe, CRASH_SECTOR_BYTES);
        memory_file_write(file, sector, (uint64_t)i * CRASH_SECTOR_BYTES);
    }
    for (size_t i = 0; i < states->choice_count; i++) {
        const struct choice *choice = &states->choices[i];
        if (choice->kind == CHOICE_NAME || choice->file != (size_t)name->file)
            continue;
        if (choice->kind == CHOICE_LENGTH) {
            length = choice->lengths[choice->option];
            continue;
        }
        memory_file_write(file, slice_of(choice->contents[choice->option], CRASH_SECTOR_BYTES),
                          (uint64_t)choice->index * CRASH_SECTOR_BYTES);
    }
    memory_file_set_length(file, length);
}

#define DIR_LEVELS_MAX 4u

static bool kept(const struct crash_states *states, size_t change) {
    if (states->follow.changes[change].safe)
        return true;
    /* The choices of names come first, in order. */
    for (size_t i = 0; i < states->choice_count; i++) {
        const struct choice *choice = &states->choices[i];
        if (choice->kind == CHOICE_NAME && choice->index == change)
            return choice->option != 0;
    }
    UNREACHED();
}

static size_t path_depth(const char *path) {
    size_t depth = 0;
    for (; *path != '\0'; path++)
        depth += *path == '/';
    return depth;
}

/* Whether what is built so far has the directory of `path`. */
static bool reachable(const struct crash_states *states, const char *path) {
    size_t bytes = memory_path_parent(path);
    for (size_t i = 0; i < states->state.name_count && bytes > 0; i++) {
        const struct memory_name *name = &states->state.names[i];
        if (name->file == MEMORY_DIR && name->path[bytes] == '\0' &&
            strncmp(name->path, path, bytes) == 0)
            return true;
    }
    return bytes == 0;
}

static void visit_one(struct crash_states *states) {
    names_copy(&states->names, &states->follow.names);
    for (size_t i = 0; i < states->follow.change_count; i++) {
        if (kept(states, i))
            names_apply(&states->names, states->follow.changes[i].event);
    }
    memory_disk_reset(&states->state);
    /* Directories first, a parent before what is in it. */
    for (size_t level = 0; level < DIR_LEVELS_MAX; level++) {
        for (size_t i = 0; i < states->names.count; i++) {
            const struct memory_name *name = &states->names.list[i];
            if (name->file == MEMORY_DIR && path_depth(name->path) == level &&
                reachable(states, name->path))
                memory_disk_add_dir(&states->state, name->path);
        }
    }
    for (size_t i = 0; i < states->names.count; i++) {
        const struct memory_name *name = &states->names.list[i];
        if (name->file != MEMORY_DIR && reachable(states, name->path))
            build_file(states, name);
    }
    states->budget -= states->budget > 0;
    states->visit(states->user, &states->state);
}

static void set_all(struct crash_states *states, bool newest) {
    for (size_t i = 0; i < states->choice_count; i++)
        states->choices[i].option = newest ? states->choices[i].options - 1 : 0;
}

static void visit_every_combination(struct crash_states *states) {
    set_all(states, false);
    for (;;) {
        visit_one(states);
        size_t i = 0;
        while (i < states->choice_count &&
               ++states->choices[i].option == states->choices[i].options)
            states->choices[i++].option = 0;
        if (i == states->choice_count)
            return;
    }
}

/* All, none, and each choice for itself against these. */
static void visit_single_choices(struct crash_states *states, bool newest) {
    set_all(states, newest);
    visit_one(states);
    for (size_t i = 0; i < states->choice_count && states->budget > 0; i++) {
        struct choice *choice = &states->choices[i];
        uint32_t usual = choice->option;
        for (choice->option = 0; choice->option < choice->options; choice->option++) {
            if (choice->option != usual)
                visit_one(states);
        }
        choice->option = usual;
    }
}

/* Torn at each point: what lies before it arrived and the rest did not, and the other way. The
 * lengths are all new, or nothing of it could be seen. */
static void visit_tears(struct crash_states *states, bool first_arrived) {
    set_all(states, !first_arrived);
    for (size_t i = 0; i < states->choice_count && states->budget > 0; i++) {
        struct choice *choice = &states->choices[i];
        if (choice->kind != CHOICE_SECTOR)
            choice->option = choice->options - 1;
    }
    for (size_t i = 0; i < states->choice_count && states->budget > 0; i++) {
        struct choice *choice = &states->choices[i];
        if (choice->kind != CHOICE_SECTOR)
            continue;
        choice->option = first_arrived ? choice->options - 1 : 0;
        visit_one(states);
    }
}

static void visit_random(struct crash_states *states, struct rng *rng) {
    uint64_t newest = rng_below(rng, 5); /* of four choices, how many are "all of it" */
    for (size_t i = 0; i < states->choice_count; i++) {
        struct choice *choice = &states->choices[i];
        if (rng_below(rng, 4) < newest)
            choice->option = choice->options - 1;
        else
            choice->option = (uint32_t)rng_below(rng, choice->options);
    }
    visit_one(states);
}

bool crash_states_visit(struct crash_states *states, size_t budget, struct rng *rng,
                        crash_visit visit, void *user) {
    choose(states);
    states->visit = visit;
    states->user = user;
    states->budget = budget;
    size_t combinations = 1;
    for (size_t i = 0; i < states->choice_count && combinations <= budget; i++)
        combinations *= states->choices[i].options;
    if (combinations <= budget) {
        visit_every_combination(states);
        return true;
    }
    visit_single_choices(states, true);
    visit_single_choices(states, false);
    visit_tears(states, true);
    visit_tears(states, false);
    while (states->budget > 0)
        visit_random(states, rng);
    return false;
}
