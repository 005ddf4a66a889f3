#include "support/crash_follow.h"

#include "base/check.h"

#include <stdlib.h>

/* ---- names ---- */

static void names_add(struct names *names, const char *path, int file) {
    if (names->count == names->capacity) {
        names->capacity = names->capacity == 0 ? 16 : names->capacity * 2;
        names->list = xrealloc(names->list, names->capacity * sizeof *names->list);
    }
    struct memory_name *name = &names->list[names->count++];
    memcpy(name->path, path, strlen(path) + 1);
    name->file = file;
}

static struct memory_name *names_find(const struct names *names, const char *path) {
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->list[i].path, path) == 0)
            return &names->list[i];
    }
    return NULL;
}

static void names_set(struct names *names, const char *path, int file) {
    struct memory_name *name = names_find(names, path);
    if (name == NULL)
        names_add(names, path, file);
    else
        name->file = file;
}

static void names_remove(struct names *names, const char *path) {
    struct memory_name *name = names_find(names, path);
    if (name != NULL)
        *name = names->list[--names->count];
}

void names_apply(struct names *names, const struct crash_event *event) {
    const struct memory_name *source = names_find(names, event->path);
    switch (event->kind) {
    case CRASH_CREATE:
        names_set(names, event->path, event->file);
        break;
    case CRASH_MAKE_DIR:
        names_set(names, event->path, MEMORY_DIR);
        break;
    case CRASH_RENAME:
        /* What has its old name by now may be another file, whose making did not arrive. */
        if (source == NULL || source->file != event->file)
            break;
        if (source->file == MEMORY_DIR) {
            for (size_t i = 0; i < names->count; i++)
                memory_name_move(&names->list[i], event->path, event->other);
        } else {
            names_set(names, event->other, source->file);
            names_remove(names, event->path);
        }
        break;
    case CRASH_REMOVE:
    case CRASH_REMOVE_DIR:
        names_remove(names, event->path);
        break;
    case CRASH_SYNC_DIR:
    case CRASH_WRITE:
    case CRASH_LENGTH:
    case CRASH_SYNC_BEGIN:
    case CRASH_SYNC_END:
    case CRASH_SYNC_LOST:
    case CRASH_MARK:
        UNREACHED();
    }
}

static bool in_directory(const char *path, const char *dir) {
    size_t bytes = memory_path_parent(path);
    size_t dir_bytes = strlen(dir);
    if (dir_bytes == 1 && (dir[0] == '/' || dir[0] == '.'))
        dir_bytes = 0;
    return bytes == dir_bytes && strncmp(path, dir, bytes) == 0;
}

/* A directory was synced. Renames cross no directories here. */
static void settle_names(struct crash_follow *follow, const char *dir) {
    for (size_t i = 0; i < follow->change_count; i++) {
        if (in_directory(follow->changes[i].event->path, dir))
            follow->changes[i].safe = true;
    }
    size_t folded = 0;
    while (folded < follow->change_count && follow->changes[folded].safe)
        names_apply(&follow->names, follow->changes[folded++].event);
    if (folded == 0)
        return;
    follow->change_count -= folded;
    memmove(follow->changes, follow->changes + folded,
            follow->change_count * sizeof *follow->changes);
}

static void add_change(struct crash_follow *follow, const struct crash_event *event) {
    INVARIANT(event->kind != CRASH_RENAME ||
              memory_path_parent(event->path) == memory_path_parent(event->other));
    follow->changes =
        xrealloc(follow->changes, (follow->change_count + 1) * sizeof *follow->changes);
    follow->changes[follow->change_count++] = (struct name_change){.event = event};
}

void names_copy(struct names *to, const struct names *from) {
    if (to->capacity < from->count) {
        to->capacity = from->count;
        to->list = xrealloc(to->list, to->capacity * sizeof *to->list);
    }
    to->count = from->count;
    if (from->count > 0)
        memcpy(to->list, from->list, from->count * sizeof *from->list);
}

/* ---- bytes and lengths ---- */

static struct followed *file_at(struct crash_follow *follow, int number) {
    size_t index = (size_t)number;
    if (index >= follow->file_count) {
        follow->files = xrealloc(follow->files, (index + 1) * sizeof *follow->files);
        for (size_t i = follow->file_count; i <= index; i++) {
            follow->files[i] = (struct followed){
                .lengths = xcalloc(1, sizeof(struct length)),
                .length_count = 1,
                .length_capacity = 1,
            };
        }
        follow->file_count = index + 1;
    }
    return &follow->files[index];
}

static struct sector *sector_at(struct followed *file, size_t index) {
    if (index >= file->sector_count) {
        file->sectors = xrealloc(file->sectors, (index + 1) * sizeof *file->sectors);
        memset(file->sectors + file->sector_count, 0,
               (index + 1 - file->sector_count) * sizeof *file->sectors);
        file->sector_count = index + 1;
    }
    return &file->sectors[index];
}

static void add_piece(struct sector *sector, struct piece piece) {
    if (sector->count == sector->capacity) {
        sector->capacity = sector->capacity == 0 ? 4 : sector->capacity * 2;
        sector->pieces = xrealloc(sector->pieces, sector->capacity * sizeof *sector->pieces);
    }
    sector->pieces[sector->count++] = piece;
}

void piece_apply(uint8_t content[CRASH_SECTOR_BYTES], const struct piece *piece) {
    if (piece->data == NULL)
        memset(content + piece->from, 0, piece->bytes);
    else
        memcpy(content + piece->from, piece->data, piece->bytes);
}

uint64_t followed_length(const struct followed *file) {
    return file->lengths[file->length_count - 1].bytes;
}

static void add_length(struct followed *file, uint64_t bytes, size_t event, bool written) {
    if (bytes == followed_length(file))
        return;
    if (file->length_count == file->length_capacity) {
        file->length_capacity *= 2;
        file->lengths = xrealloc(file->lengths, file->length_capacity * sizeof *file->lengths);
    }
    file->lengths[file->length_count++] =
        (struct length){.bytes = bytes, .event = event, .written = written};
}

/* Zeros where there never was anything else make no difference. */
static bool is_blank(const struct followed *file, size_t index, const uint8_t *data, size_t bytes) {
    static const uint8_t zeros[CRASH_SECTOR_BYTES];
    if (memcmp(data, zeros, bytes) != 0)
        return false;
    if (index >= file->sector_count)
        return true;
    const struct sector *sector = &file->sectors[index];
    return sector->count == 0 && memcmp(sector->safe, zeros, sizeof zeros) == 0;
}

static void add_write(struct crash_follow *follow, const struct crash_event *event) {
    struct followed *file = file_at(follow, event->file);
    size_t done = 0;
    while (done < event->bytes) {
        uint64_t at = event->at + done;
        size_t from = (size_t)(at % CRASH_SECTOR_BYTES);
        size_t bytes = CRASH_SECTOR_BYTES - from;
        if (bytes > event->bytes - done)
            bytes = event->bytes - done;
        const uint8_t *data = follow->trace->bytes + event->bytes_at + done;
        size_t index = (size_t)(at / CRASH_SECTOR_BYTES);
        if (!is_blank(file, index, data, bytes)) {
            add_piece(sector_at(file, index), (struct piece){
                                                  .event = follow->position,
                                                  .data = data,
                                                  .from = (uint16_t)from,
                                                  .bytes = (uint16_t)bytes,
                                              });
        }
        done += bytes;
    }
    uint64_t end = event->at + event->bytes;
    if (end > followed_length(file))
        add_length(file, end, follow->position, true);
}

static void set_length(struct crash_follow *follow, const struct crash_event *event) {
    struct followed *file = file_at(follow, event->file);
    for (size_t i = (size_t)(event->at / CRASH_SECTOR_BYTES); i < file->sector_count; i++) {
        uint64_t start = (uint64_t)i * CRASH_SECTOR_BYTES;
        uint16_t from = event->at > start ? (uint16_t)(event->at - start) : 0;
        add_piece(&file->sectors[i], (struct piece){
                                         .event = follow->position,
                                         .from = from,
                                         .bytes = (uint16_t)(CRASH_SECTOR_BYTES - from),
                                     });
    }
    add_length(file, event->at, follow->position, false);
}

static void settle_sector(struct sector *sector, size_t begin, enum certainty certainty) {
    for (size_t i = 0; i < sector->count; i++) {
        struct piece *piece = &sector->pieces[i];
        if (piece->event < begin && piece->certainty == IN_DOUBT)
            piece->certainty = certainty;
    }
    size_t folded = 0;
    while (folded < sector->count && sector->pieces[folded].certainty == SAFE)
        piece_apply(sector->safe, &sector->pieces[folded++]);
    sector->count -= folded;
    if (folded > 0)
        memmove(sector->pieces, sector->pieces + folded, sector->count * sizeof *sector->pieces);
}

/* A sync of a file that began at the event `begin` ended. */
static void settle_file(struct followed *file, size_t begin, bool kept) {
    for (size_t i = 0; i < file->sector_count; i++)
        settle_sector(&file->sectors[i], begin, kept ? SAFE : LOST);
    if (!kept)
        return;
    size_t folded = 0;
    while (folded + 1 < file->length_count && file->lengths[folded + 1].event < begin)
        folded++;
    file->length_count -= folded;
    memmove(file->lengths, file->lengths + folded, file->length_count * sizeof *file->lengths);
}

/* ---- following ---- */

void crash_follow_init(struct crash_follow *follow, const struct crash_disk *trace) {
    *follow = (struct crash_follow){.trace = trace};
    for (size_t i = 0; i < trace->start.name_count; i++) {
        const struct memory_name *name = &trace->start.names[i];
        names_add(&follow->names, name->path, name->file);
        if (name->file == MEMORY_DIR)
            continue;
        const struct memory_file *bytes = &trace->start.files[name->file];
        struct followed *file = file_at(follow, name->file);
        file->lengths[0].bytes = bytes->length;
        for (size_t at = 0; at < bytes->stored; at += CRASH_SECTOR_BYTES) {
            memory_file_read(bytes, sector_at(file, at / CRASH_SECTOR_BYTES)->safe,
                             CRASH_SECTOR_BYTES, at);
        }
    }
}

void crash_follow_deinit(struct crash_follow *follow) {
    for (size_t i = 0; i < follow->file_count; i++) {
        for (size_t j = 0; j < follow->files[i].sector_count; j++)
            free(follow->files[i].sectors[j].pieces);
        free(follow->files[i].sectors);
        free(follow->files[i].lengths);
    }
    free(follow->files);
    free(follow->names.list);
    free(follow->changes);
}

const struct crash_event *crash_follow_step(struct crash_follow *follow) {
    if (follow->position == follow->trace->event_count)
        return NULL;
    const struct crash_event *event = &follow->trace->events[follow->position];
    switch (event->kind) {
    case CRASH_CREATE:
        file_at(follow, event->file);
        add_change(follow, event);
        break;
    case CRASH_MAKE_DIR:
    case CRASH_REMOVE:
    case CRASH_REMOVE_DIR:
    case CRASH_RENAME:
        add_change(follow, event);
        break;
    case CRASH_SYNC_DIR:
        settle_names(follow, event->path);
        break;
    case CRASH_WRITE:
        add_write(follow, event);
        break;
    case CRASH_LENGTH:
        set_length(follow, event);
        break;
    case CRASH_SYNC_END:
    case CRASH_SYNC_LOST:
        settle_file(file_at(follow, event->file), (size_t)event->at, event->kind == CRASH_SYNC_END);
        break;
    case CRASH_SYNC_BEGIN:
    case CRASH_MARK:
        break;
    }
    follow->position++;
    return event;
}
