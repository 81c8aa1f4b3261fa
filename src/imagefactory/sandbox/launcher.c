/*
 * Starts the programs of a foreign tree: the native twin of the safe ones, the rest emulated.
 *
 * binfmt_misc (flags P and F) calls it as: launcher PATH ARGV0 ARGUMENTS...
 * Below TWIN it finds, when foreign.attach has put them there:
 *
 *     allow         what may run natively: one line a program, "PATH" or "PATH<tab>ARGUMENT...",
 *                   the latter only when the call begins with these arguments; first stand
 *                   lines with a "!" before them: calls that must not
 *     root          the twin: programs under the paths that they have in a merged-/usr tree
 *     interpreter   the emulator, which a chroot would hide otherwise
 *     trace         when it exists, a line about each call is added to it
 *
 * Whatever is not certain is emulated: no list, no such line, a set-user-ID program, a variable
 * of the dynamic linker that means the foreign program's libraries (LD_PRELOAD, ...).
 *
 * The program decides by its real path, so that links (sh -> dash, awk -> alternatives -> mawk)
 * and trees before the /usr merge need no entries of their own. argv[0] and the environment are
 * handed on untouched. Plain C and POSIX calls: it serves every host architecture.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef TWIN
#define TWIN "/.twin"
#endif
#ifndef INTERPRETER /* where the emulator lies on the host, for calls outside every tree */
#error "INTERPRETER is not defined"
#endif

enum { LIST_MAX = 64 * 1024, LINE_WORDS = 32 };

static char list[LIST_MAX + 1];
static char program[sizeof TWIN "/root/usr" + PATH_MAX] = TWIN "/root/usr";
/* The path in a merged-/usr tree, as the list has it; it ends `program`. */
static char *const usr_path = program + sizeof TWIN "/root" - 1;

/* Whether the call begins with the words of a list's line, up to its end. */
static int begins_with(char **arguments, const char *words, const char *end)
{
    while (words < end) {
        const char *tab = memchr(words, '\t', end - words);
        size_t length = (tab ? tab : end) - words;
        if (!*arguments || strlen(*arguments) != length || memcmp(*arguments, words, length))
            return 0;
        arguments++;
        words += length + 1;
    }
    return 1;
}

/* Whether a line of the list allows this call. */
static int listed(const char *path, char **arguments)
{
    size_t length = strlen(path), held = 0;
    ssize_t got;
    int file = open(TWIN "/allow", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    while (held < LIST_MAX && (got = read(file, list + held, LIST_MAX - held)) > 0)
        held += got;
    close(file);
    for (char *line = list, *end; line < list + held; line = end + 1) {
        end = memchr(line, '\n', list + held - line);
        if (!end)
            break; /* a line without its end may be half of one */
        int allowed = *line != '!';
        line += !allowed;
        if ((size_t)(end - line) < length || memcmp(line, path, length))
            continue;
        if (line[length] == '\n')
            return allowed;
        if (line[length] == '\t' && begins_with(arguments, line + length + 1, end))
            return allowed;
    }
    return 0;
}

static int linker_is_told(char **environment)
{
    for (; *environment; environment++)
        if (!strncmp(*environment, "LD_", 3))
            return 1;
    return 0;
}

/* Finds what the twin calls the program; /bin/sed and /usr/bin/sed are one. */
static int resolve(const char *path)
{
    static char real[PATH_MAX];
    struct stat status;
    if (!realpath(path, real) || stat(real, &status))
        return 0;
    if (status.st_mode & (S_ISUID | S_ISGID))
        return 0;
    strcpy(strncmp(real, "/usr/", 5) ? usr_path + 4 : usr_path, real);
    return 1;
}

/* Adds "native|emulated PATH ARGUMENTS..." to the trace in one write, so that lines stay whole. */
static void trace(const char *how, char **argv)
{
    struct iovec parts[2 * LINE_WORDS + 4];
    int count = 0, words = 0;
    int file = open(TWIN "/trace", O_WRONLY | O_APPEND | O_CLOEXEC);
    if (file < 0)
        return;
#define PART(text) (parts[count].iov_base = (void *)(text), parts[count++].iov_len = strlen(text))
    PART(how);
    PART(" ");
    PART(argv[1]);
    for (char **word = argv + 3; *word && words < LINE_WORDS; word++, words++) {
        PART(" ");
        parts[count].iov_base = *word;
        parts[count++].iov_len = strcspn(*word, "\n");
    }
    PART("\n");
    if (writev(file, parts, count) < 0) {
        /* A trace that cannot be written must not change what is traced. */
    }
    close(file);
}

int main(int argc, char **argv)
{
    unsigned long opened = getauxval(AT_EXECFD);
    if (argc < 3)
        return 127; /* not started by binfmt_misc */
    if (opened) /* flag C brings flag O: the program's file, of no use to what runs next */
        fcntl(opened, F_SETFD, FD_CLOEXEC);

    if (!access(TWIN "/allow", R_OK) && !linker_is_told(environ) && resolve(argv[1]) &&
        listed(usr_path, argv + 3) && !access(program, X_OK)) {
        trace("native", argv);
        execv(program, argv + 2);
    }
    trace("emulated", argv);
    char **emulated = calloc(argc + 2, sizeof *emulated);
    if (!emulated)
        return 126;
    emulated[0] = argv[0];
    emulated[1] = "-0";
    emulated[2] = argv[2];
    emulated[3] = argv[1];
    memcpy(emulated + 4, argv + 3, (argc - 2) * sizeof *emulated);
    execv(TWIN "/interpreter", emulated);
    if (errno == ENOENT)
        execv(INTERPRETER, emulated);
    return errno == ENOENT ? 127 : 126;
}
