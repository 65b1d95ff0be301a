/* Counts the calls that change files below a folder, and strikes one of them.

   LD_PRELOAD puts these functions before those of the C library.  The environment says
   what to do, at the start of the process and whenever strike_arm is called:

     STRIKE_FOLDER  absolute path; without it, nothing is counted
     STRIKE_LOG     file outside of the folder, to which the calls are appended
     STRIKE_NUMBER  number of the call to strike, from 1; 0 logs all calls
     STRIKE_STATES  folder outside; with number 0, the folder is copied to its subfolder N
                    before call N: what SIGKILL would leave there
     STRIKE_ERRNO   error number with which the call fails; 0 kills the process before it
     STRIKE_RANK    value of HOROVOD_RANK in the process that is meant; empty: one that
                    has none
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[PATH_MAX], log_path[PATH_MAX], states[PATH_MAX];

static long number;
static int error;
/* Shared with the processes that this one forks, whose calls count as well. */
static struct {
  atomic_long count;
  pthread_mutex_t copying;
} *shared;

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

__attribute__((constructor)) void strike_arm(void) {
  int is_meant = !strcmp(variable("STRIKE_RANK"), variable("HOROVOD_RANK"));
  strncpy(folder, is_meant ? variable("STRIKE_FOLDER") : "", PATH_MAX - 1);
  strncpy(log_path, variable("STRIKE_LOG"), PATH_MAX - 1);
  strncpy(states, variable("STRIKE_STATES"), PATH_MAX - 1);
  number = atol(variable("STRIKE_NUMBER"));
  error = atoi(variable("STRIKE_ERRNO"));
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->copying, &attributes);
}

/* Write the path of an open file, or of a name relative to an open folder. */
static void resolve(int descriptor, const char *name, char *path) {
  char link[64];
  ssize_t length = 0;
  if (!name || name[0] != '/') {
    if (descriptor == AT_FDCWD) {
      length = getcwd(path, PATH_MAX) ? strlen(path) : 0;
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
      length = readlink(link, path, PATH_MAX - 1);
    }
    if (length < 0) length = 0;
    path[length] = 0;
  }
  if (name) snprintf(path + length, PATH_MAX - length, length ? "/%s" : "%s", name);
}

static void copy_state(long current) {
  char target[2 * PATH_MAX];
  char *command[] = {"cp", "-a", folder, target, NULL}, *none[] = {NULL};
  pid_t pid;
  snprintf(target, sizeof target, "%s/%ld", states, current);
  if (!posix_spawnp(&pid, "cp", NULL, NULL, command, none)) waitpid(pid, NULL, 0);
}

/* Note a call; return whether it has to fail, with errno set. */
static int strikes(const char *call, int descriptor, const char *name) {
  char path[2 * PATH_MAX], line[3 * PATH_MAX];
  int saved = errno;
  size_t length = strlen(folder);
  if (!length) return 0;
  resolve(descriptor, name, path);
  errno = saved;
  if (strncmp(path, folder, length) || (path[length] && path[length] != '/')) return 0;
  if (states[0] && !number) {
    /* Else other threads change what is being copied. */
    pthread_mutex_lock(&shared->copying);
    copy_state(atomic_load(&shared->count) + 1);
  }
  long current = atomic_fetch_add(&shared->count, 1) + 1;
  if (states[0] && !number) pthread_mutex_unlock(&shared->copying);
  if (number && current != number) return 0;
  int size = snprintf(line, sizeof line, "%ld %s %s\n", current, call, path + length);
  /* System calls, which are not counted. */
  int log = syscall(SYS_open, log_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
  syscall(SYS_write, log, line, size);
  syscall(SYS_close, log);
  errno = saved;
  if (!number) return 0;
  if (!error) raise(SIGKILL);
  errno = error;
  return 1;
}

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

/* A function whose first argument is a path, or an open file. */
#define OF_PATH(name, parameters, arguments) \
  int name parameters { \
    static int(*real) parameters; \
    if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name); \
    return strikes(#name, AT_FDCWD, path) ? -1 : real arguments; \
  }
#define AT_FOLDER(name, parameters, arguments) \
  int name parameters { \
    static int(*real) parameters; \
    if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name); \
    return strikes(#name, at, path) ? -1 : real arguments; \
  }
#define OF_FILE(type, name, parameters, arguments) \
  type name parameters { \
    static type(*real) parameters; \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
    return strikes(#name, fd, NULL) ? (type)-1 : real arguments; \
  }

OF_PATH(creat, (const char *path, mode_t mode), (path, mode))
OF_PATH(creat64, (const char *path, mode_t mode), (path, mode))
OF_PATH(unlink, (const char *path), (path))
OF_PATH(remove, (const char *path), (path))
OF_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
OF_PATH(rmdir, (const char *path), (path))
OF_PATH(truncate, (const char *path, off_t size), (path, size))
OF_PATH(truncate64, (const char *path, off_t size), (path, size))
/* Of calls with two paths, the new one counts. */
OF_PATH(rename, (const char *old, const char *path), (old, path))
OF_PATH(link, (const char *old, const char *path), (old, path))
OF_PATH(symlink, (const char *old, const char *path), (old, path))
AT_FOLDER(unlinkat, (int at, const char *path, int flags), (at, path, flags))
AT_FOLDER(mkdirat, (int at, const char *path, mode_t mode), (at, path, mode))
AT_FOLDER(renameat, (int from, const char *old, int at, const char *path),
          (from, old, at, path))
AT_FOLDER(renameat2,
          (int from, const char *old, int at, const char *path, unsigned int flags),
          (from, old, at, path, flags))
AT_FOLDER(linkat, (int from, const char *old, int at, const char *path, int flags),
          (from, old, at, path, flags))
AT_FOLDER(symlinkat, (const char *old, int at, const char *path), (old, at, path))
OF_FILE(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
OF_FILE(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t place),
        (fd, data, size, place))
OF_FILE(ssize_t, pwrite64, (int fd, const void *data, size_t size, off_t place),
        (fd, data, size, place))
OF_FILE(ssize_t, writev, (int fd, const struct iovec *data, int size), (fd, data, size))
OF_FILE(ssize_t, sendfile, (int fd, int from, off_t *place, size_t size),
        (fd, from, place, size))
OF_FILE(ssize_t, sendfile64, (int fd, int from, off_t *place, size_t size),
        (fd, from, place, size))
OF_FILE(int, fsync, (int fd), (fd))
OF_FILE(int, fdatasync, (int fd), (fd))
OF_FILE(int, ftruncate, (int fd, off_t size), (fd, size))
OF_FILE(int, ftruncate64, (int fd, off_t size), (fd, size))

/* Files are opened for writing by several names and with an optional argument. */
#define OPEN(name, at, leading, first) \
  int name(leading const char *path, int flags, ...) { \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = va_arg(rest, mode_t); \
    va_end(rest); \
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)); \
    static int (*real)(leading const char *, int, ...); \
    if (!real) real = (int (*)(leading const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    if (writes && strikes(#name, at, path)) return -1; \
    return real(first path, flags, mode); \
  }
#define NONE
#define AT_PARAMETER int folder_fd,
#define AT_ARGUMENT folder_fd,
OPEN(open, AT_FDCWD, NONE, NONE)
OPEN(open64, AT_FDCWD, NONE, NONE)
OPEN(openat, folder_fd, AT_PARAMETER, AT_ARGUMENT)
OPEN(openat64, folder_fd, AT_PARAMETER, AT_ARGUMENT)

/* TensorFlow writes through streams, whose own system calls cannot be seen from here. */
FILE *fopen(const char *path, const char *mode) {
  REAL(FILE *, fopen, const char *, const char *);
  if (strpbrk(mode, "wa+") && strikes("fopen", AT_FDCWD, path)) return NULL;
  return real(path, mode);
}

FILE *fopen64(const char *path, const char *mode) {
  REAL(FILE *, fopen64, const char *, const char *);
  if (strpbrk(mode, "wa+") && strikes("fopen", AT_FDCWD, path)) return NULL;
  return real(path, mode);
}

size_t fwrite(const void *data, size_t size, size_t items, FILE *stream) {
  REAL(size_t, fwrite, const void *, size_t, size_t, FILE *);
  if (strikes("fwrite", fileno(stream), NULL)) return 0;
  return real(data, size, items, stream);
}

int fflush(FILE *stream) {
  REAL(int, fflush, FILE *);
  if (stream && __fwritable(stream) && strikes("fflush", fileno(stream), NULL))
    return EOF;
  return real(stream);
}

int fclose(FILE *stream) {
  REAL(int, fclose, FILE *);
  int fails = __fwritable(stream) && strikes("fclose", fileno(stream), NULL);
  int code = fails ? errno : 0;
  int result = real(stream);
  if (!fails) return result;
  errno = code;
  return EOF;
}
