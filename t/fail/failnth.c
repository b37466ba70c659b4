/* failnth.c - preloaded in tests: the n-th call of a chosen kind fails in the program under test
 *
 * HYPER_TEST_FAIL names a file that the test made, a struct page below (a worker of the proxy takes the file with
 * ".worker" behind its name). It is mapped by both: the test writes what shall fail and arms it, at any moment; the
 * program counts the calls and notes what it let fail, where, and how many blocks of memory it holds.
 *
 * Always true:
 *  1. While nothing is armed each call does what it does without us.
 *  2. A call that fails has not been made: nothing of it happened.
 *  3. Only what a kernel or libc may answer is answered. A socket loses its peer where it is a connection; a lost
 *     byte of a signal's pipe or an EAGAIN without a reason are not to be survived by anybody.
 *  4. Where the errno is DIE_BEFORE or DIE_BEHIND nothing fails: the process is killed right before that call, or right
 *     behind it (send, recv and write alone), with all that it did.
 *  5. A worker gets its environment anew from its master, which drops LD_PRELOAD: execve() below puts it back.
 *
 * Not here: calls that libc makes within itself (getaddrinfo() opens its sockets so), and memory under a sanitizer
 * that is linked into the program: `seen` tells the test that a kind never comes by.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE_MAGIC 0x4c494146u /* "FAIL" */
#define FRAMES     24
#define EXPORT     __attribute__((visibility("default")))

/* t/lib/FailNth.pm has the same list. */
enum kind {
	K_MEM,    /* malloc() and its family */
	K_FD,     /* whatever makes a descriptor */
	K_KERNEL, /* memory and processes of the kernel: epoll_ctl(), mmap(), fork() */
	K_SEND,   /* to a connection */
	K_RECV,   /* from a connection */
	K_MSG,    /* sendmsg(), recvmsg(): between processes */
	K_SPLICE,
	K_DISK, /* writing, syncing, growing files */
	K_PIPE, /* write() to a pipe, but for the log */
	K_MAX
};

enum { DIE_BEFORE = -1, DIE_BEHIND = -2 };

struct page {
	uint32_t magic;
	_Atomic uint32_t armed;
	uint32_t kinds; /* bits */
	uint32_t n;     /* the first that fails, from 1 */
	uint32_t times; /* that many fail */
	_Atomic uint32_t count;
	_Atomic uint32_t failed;
	int32_t err; /* 0: the one that fits the call */
	_Atomic int64_t blocks;
	_Atomic uint32_t seen[K_MAX];
	uint32_t pad[5];
	char what[64];
	uint64_t frames[FRAMES]; /* return addresses, 0 at the end */
	uint64_t base;           /* where the program was loaded */
};
_Static_assert(offsetof(struct page, what) == 96, "FailNth.pm reads these places");
_Static_assert(offsetof(struct page, frames) == 160, "FailNth.pm reads these places");

static struct page *page;
static _Atomic int64_t blocks;
static __thread bool is_inside __attribute__((tls_model("initial-exec")));
static bool is_dying;

static void
note(const char *call, uint32_t k)
{
	void *frames[FRAMES + 2];
	char line[128];
	int n;

	snprintf(page->what, sizeof(page->what), "%s() errno %d", call, errno);
	n = backtrace(frames, FRAMES + 2);
	for (int i = 0; i < FRAMES; i++)
		page->frames[i] = i + 2 < n ? (uint64_t)(uintptr_t)frames[i + 2] : 0;
	n = snprintf(line, sizeof(line), "failnth: call %u fails: %s\n", k, page->what);
	(void)!write(STDERR_FILENO, line, (size_t)n);
}

static bool
fails(enum kind kind, const char *call, int err)
{
	uint32_t k;

	if (!page || is_inside)
		return false;
	atomic_fetch_add(&page->seen[kind], 1);
	if (!atomic_load(&page->armed) || !(page->kinds >> kind & 1))
		return false;
	k = atomic_fetch_add(&page->count, 1) + 1;
	if (k < page->n || k - page->n >= page->times)
		return false;
	if (page->err < 0) {
		atomic_fetch_add(&page->failed, 1);
		if (page->err == DIE_BEFORE)
			kill(getpid(), SIGKILL);
		is_dying = true;
		return false;
	}
	errno = err = page->err ? page->err : err;
	is_inside = true;
	if (atomic_fetch_add(&page->failed, 1) == 0)
		note(call, k);
	is_inside = false;
	errno = err;
	return true;
}

/* What a call says that was made. */
static ssize_t
made(ssize_t n)
{
	if (is_dying)
		kill(getpid(), SIGKILL);
	return n;
}

/* The first one is the program. */
static int
note_base(struct dl_phdr_info *info, size_t len, void *arg)
{
	(void)len;
	(void)arg;
	page->base = info->dlpi_addr;
	return 1;
}

__attribute__((constructor)) static void
attach(void)
{
	const char *path = getenv("HYPER_TEST_FAIL");
	char name[512], cmd[256] = "";
	void *frames[2], *p;
	struct stat st;
	int fd;

	if (!path)
		return;
	fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, cmd, sizeof(cmd) - 1) < 0)
		return;
	close(fd);
	snprintf(name, sizeof(name), "%s%s", path, strcmp(cmd + strlen(cmd) + 1, "worker") == 0 ? ".worker" : "");
	fd = open(name, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(struct page)) {
		p = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		(void)!backtrace(frames, 2); /* loads what it needs now, not in the middle of a call */
		if (p != MAP_FAILED && ((struct page *)p)->magic == PAGE_MAGIC) {
			page = p;
			dl_iterate_phdr(note_base, NULL);
		}
	}
	close(fd);
}

/* --- memory ------------------------------------------------------------------- */

/* dlsym() may ask for memory before it has told us where there is some. */
static char boot[16384] __attribute__((aligned(16)));
static size_t boot_len;

static bool
is_boot(const void *p)
{
	return (const char *)p >= boot && (const char *)p < boot + sizeof(boot);
}

static void *
boot_alloc(size_t len)
{
	void *p = boot + boot_len;

	len = (len + 15) & ~(size_t)15;
	if (len > sizeof(boot) - boot_len)
		abort();
	boot_len += len;
	return p;
}

static void *
found(void *p)
{
	if (p)
		blocks++;
	if (page && !is_inside)
		page->blocks = blocks;
	return p;
}

/* The function of this name behind us. */
#define NEXT(ret, name, ...)                              \
	static ret (*next)(__VA_ARGS__);                  \
	static bool is_asking;                            \
	if (!next && !is_asking) {                        \
		is_asking = true;                         \
		*(void **)&next = dlsym(RTLD_NEXT, name); \
		is_asking = false;                        \
	}

EXPORT void *
malloc(size_t len)
{
	NEXT(void *, "malloc", size_t)
	if (!next)
		return boot_alloc(len);
	return fails(K_MEM, "malloc", ENOMEM) ? NULL : found(next(len));
}

EXPORT void *
calloc(size_t n, size_t len)
{
	NEXT(void *, "calloc", size_t, size_t)
	if (!next)
		return boot_alloc(n * len);
	return fails(K_MEM, "calloc", ENOMEM) ? NULL : found(next(n, len));
}

EXPORT void *
realloc(void *old, size_t len)
{
	void *p;
	NEXT(void *, "realloc", void *, size_t)
	if (!next || is_boot(old)) {
		p = malloc(len);
		if (p && old)
			memmove(p, old,
			    len < (size_t)(boot + sizeof(boot) - (char *)old)
				? len
				: (size_t)(boot + sizeof(boot) - (char *)old));
		return p;
	}
	if (len > 0 && fails(K_MEM, "realloc", ENOMEM))
		return NULL;
	p = next(old, len);
	if (!old)
		return found(p);
	if (!p && len == 0)
		blocks--;
	return p;
}

EXPORT void *
reallocarray(void *old, size_t n, size_t len)
{
	size_t all;

	if (__builtin_mul_overflow(n, len, &all)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(old, all);
}

EXPORT int
posix_memalign(void **ret, size_t align, size_t len)
{
	int rc;
	NEXT(int, "posix_memalign", void **, size_t, size_t)
	if (fails(K_MEM, "posix_memalign", ENOMEM))
		return ENOMEM;
	rc = next(ret, align, len);
	if (rc == 0)
		found(*ret);
	return rc;
}

EXPORT void *
aligned_alloc(size_t align, size_t len)
{
	NEXT(void *, "aligned_alloc", size_t, size_t)
	return fails(K_MEM, "aligned_alloc", ENOMEM) ? NULL : found(next(align, len));
}

EXPORT void
free(void *p)
{
	NEXT(void, "free", void *)
	if (!p || is_boot(p) || !next)
		return;
	blocks--;
	if (page && !is_inside)
		page->blocks = blocks;
	next(p);
}

/* --- descriptors -------------------------------------------------------------- */

EXPORT int
socket(int domain, int type, int protocol)
{
	NEXT(int, "socket", int, int, int)
	return fails(K_FD, "socket", EMFILE) ? -1 : next(domain, type, protocol);
}

EXPORT int
socketpair(int domain, int type, int protocol, int sv[2])
{
	NEXT(int, "socketpair", int, int, int, int *)
	return fails(K_FD, "socketpair", EMFILE) ? -1 : next(domain, type, protocol, sv);
}

EXPORT int
accept(int fd, struct sockaddr *restrict sa, socklen_t *restrict len)
{
	NEXT(int, "accept", int, struct sockaddr *, socklen_t *)
	return fails(K_FD, "accept", EMFILE) ? -1 : next(fd, sa, len);
}

EXPORT int
accept4(int fd, struct sockaddr *restrict sa, socklen_t *restrict len, int flags)
{
	NEXT(int, "accept4", int, struct sockaddr *, socklen_t *, int)
	return fails(K_FD, "accept4", EMFILE) ? -1 : next(fd, sa, len, flags);
}

EXPORT int
pipe2(int fds[2], int flags)
{
	NEXT(int, "pipe2", int *, int)
	return fails(K_FD, "pipe2", EMFILE) ? -1 : next(fds, flags);
}

EXPORT int
pipe(int fds[2])
{
	return pipe2(fds, 0);
}

EXPORT int
dup(int fd)
{
	NEXT(int, "dup", int)
	return fails(K_FD, "dup", EMFILE) ? -1 : next(fd);
}

EXPORT int
dup2(int fd, int to)
{
	NEXT(int, "dup2", int, int)
	return fails(K_FD, "dup2", EMFILE) ? -1 : next(fd, to);
}

EXPORT int
eventfd(unsigned value, int flags)
{
	NEXT(int, "eventfd", unsigned, int)
	return fails(K_FD, "eventfd", EMFILE) ? -1 : next(value, flags);
}

EXPORT int
memfd_create(const char *name, unsigned flags)
{
	NEXT(int, "memfd_create", const char *, unsigned)
	return fails(K_FD, "memfd_create", EMFILE) ? -1 : next(name, flags);
}

EXPORT int
epoll_create1(int flags)
{
	NEXT(int, "epoll_create1", int)
	return fails(K_FD, "epoll_create1", EMFILE) ? -1 : next(flags);
}

static int
do_fcntl(int (*next)(int, int, ...), int fd, int cmd, void *arg)
{
	if ((cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) && fails(K_FD, "fcntl(F_DUPFD)", EMFILE))
		return -1;
	return next(fd, cmd, arg);
}

EXPORT int
fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;
	NEXT(int, "fcntl", int, int, ...)
	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return do_fcntl(next, fd, cmd, arg);
}

EXPORT int
fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;
	NEXT(int, "fcntl64", int, int, ...)
	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return do_fcntl(next, fd, cmd, arg);
}

EXPORT int
open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode = 0;
	NEXT(int, "open", const char *, int, ...)
	va_start(ap, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return fails(K_FD, "open", EMFILE) ? -1 : next(path, flags, mode);
}

EXPORT int
open64(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode = 0;
	NEXT(int, "open64", const char *, int, ...)
	va_start(ap, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return fails(K_FD, "open", EMFILE) ? -1 : next(path, flags, mode);
}

EXPORT FILE *
fopen(const char *restrict path, const char *restrict mode)
{
	NEXT(FILE *, "fopen", const char *, const char *)
	return fails(K_FD, "fopen", EMFILE) ? NULL : next(path, mode);
}

EXPORT FILE *
fopen64(const char *restrict path, const char *restrict mode)
{
	NEXT(FILE *, "fopen64", const char *, const char *)
	return fails(K_FD, "fopen", EMFILE) ? NULL : next(path, mode);
}

/* --- the kernel's memory, processes ------------------------------------------- */

EXPORT int
epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *ev)
{
	NEXT(int, "epoll_ctl", int, int, int, struct epoll_event *)
	return op == EPOLL_CTL_ADD && fails(K_KERNEL, "epoll_ctl(ADD)", ENOMEM) ? -1 : next(epoll_fd, op, fd, ev);
}

EXPORT void *
mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
	NEXT(void *, "mmap", void *, size_t, int, int, int, off_t)
	return fails(K_KERNEL, "mmap", ENOMEM) ? MAP_FAILED : next(at, len, prot, flags, fd, off);
}

EXPORT pid_t
fork(void)
{
	NEXT(pid_t, "fork", void)
	return fails(K_KERNEL, "fork", EAGAIN) ? -1 : next();
}

/* --- connections ---------------------------------------------------------------- */

static bool
is_connection(int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int saved = errno;
	bool is_inet =
	    getsockname(fd, (struct sockaddr *)&ss, &len) == 0 && (ss.ss_family == AF_INET || ss.ss_family == AF_INET6);

	errno = saved;
	return is_inet;
}

static bool
is_file(int fd)
{
	struct stat st;
	int saved = errno;
	bool is_regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);

	errno = saved;
	return is_regular && fd != STDERR_FILENO;
}

static bool
is_pipe(int fd)
{
	struct stat st;
	int saved = errno;
	bool is_fifo = fd > STDERR_FILENO && fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);

	errno = saved;
	return is_fifo;
}

EXPORT ssize_t
send(int fd, const void *data, size_t len, int flags)
{
	NEXT(ssize_t, "send", int, const void *, size_t, int)
	return is_connection(fd) && fails(K_SEND, "send", ECONNRESET) ? -1 : made(next(fd, data, len, flags));
}

EXPORT ssize_t
sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to, socklen_t to_len)
{
	NEXT(ssize_t, "sendto", int, const void *, size_t, int, const struct sockaddr *, socklen_t)
	return is_connection(fd) && fails(K_SEND, "sendto", ECONNRESET) ? -1 : next(fd, data, len, flags, to, to_len);
}

EXPORT ssize_t
write(int fd, const void *data, size_t len)
{
	NEXT(ssize_t, "write", int, const void *, size_t)
	if (page && !is_inside &&
	    ((is_file(fd) && fails(K_DISK, "write", ENOSPC)) || (is_pipe(fd) && fails(K_PIPE, "write", ENOMEM)) ||
		(is_connection(fd) && fails(K_SEND, "write", ECONNRESET))))
		return -1;
	return made(next(fd, data, len));
}

EXPORT ssize_t
writev(int fd, const struct iovec *iov, int n)
{
	NEXT(ssize_t, "writev", int, const struct iovec *, int)
	return is_connection(fd) && fails(K_SEND, "writev", ECONNRESET) ? -1 : next(fd, iov, n);
}

EXPORT ssize_t
recv(int fd, void *data, size_t len, int flags)
{
	NEXT(ssize_t, "recv", int, void *, size_t, int)
	return is_connection(fd) && fails(K_RECV, "recv", ECONNRESET) ? -1 : made(next(fd, data, len, flags));
}

EXPORT ssize_t
recvfrom(
    int fd, void *restrict data, size_t len, int flags, struct sockaddr *restrict from, socklen_t *restrict from_len)
{
	NEXT(ssize_t, "recvfrom", int, void *, size_t, int, struct sockaddr *, socklen_t *)
	return is_connection(fd) && fails(K_RECV, "recvfrom", ECONNRESET) ? -1
									  : next(fd, data, len, flags, from, from_len);
}

EXPORT ssize_t
read(int fd, void *data, size_t len)
{
	NEXT(ssize_t, "read", int, void *, size_t)
	return page && is_connection(fd) && fails(K_RECV, "read", ECONNRESET) ? -1 : next(fd, data, len);
}

EXPORT ssize_t
readv(int fd, const struct iovec *iov, int n)
{
	NEXT(ssize_t, "readv", int, const struct iovec *, int)
	return is_connection(fd) && fails(K_RECV, "readv", ECONNRESET) ? -1 : next(fd, iov, n);
}

EXPORT int
connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	NEXT(int, "connect", int, const struct sockaddr *, socklen_t)
	return sa->sa_family != AF_UNSPEC && is_connection(fd) && fails(K_SEND, "connect", ENETUNREACH)
		   ? -1
		   : next(fd, sa, len);
}

EXPORT ssize_t
sendmsg(int fd, const struct msghdr *mh, int flags)
{
	NEXT(ssize_t, "sendmsg", int, const struct msghdr *, int)
	if (is_connection(fd) ? fails(K_SEND, "sendmsg", ECONNRESET) : fails(K_MSG, "sendmsg", EAGAIN))
		return -1;
	return next(fd, mh, flags);
}

EXPORT ssize_t
recvmsg(int fd, struct msghdr *mh, int flags)
{
	NEXT(ssize_t, "recvmsg", int, struct msghdr *, int)
	if (is_connection(fd) ? fails(K_RECV, "recvmsg", ECONNRESET) : fails(K_MSG, "recvmsg", ENOBUFS))
		return -1;
	return next(fd, mh, flags);
}

EXPORT ssize_t
splice(int from, off64_t *from_off, int to, off64_t *to_off, size_t len, unsigned flags)
{
	NEXT(ssize_t, "splice", int, off64_t *, int, off64_t *, size_t, unsigned)
	return fails(K_SPLICE, "splice", ENOMEM) ? -1 : next(from, from_off, to, to_off, len, flags);
}

/* --- files ---------------------------------------------------------------------- */

EXPORT ssize_t
pwrite(int fd, const void *data, size_t len, off_t off)
{
	NEXT(ssize_t, "pwrite", int, const void *, size_t, off_t)
	return fails(K_DISK, "pwrite", ENOSPC) ? -1 : next(fd, data, len, off);
}

EXPORT ssize_t
pwrite64(int fd, const void *data, size_t len, off64_t off)
{
	NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t)
	return fails(K_DISK, "pwrite64", ENOSPC) ? -1 : next(fd, data, len, off);
}

EXPORT int
fsync(int fd)
{
	NEXT(int, "fsync", int)
	return fails(K_DISK, "fsync", EIO) ? -1 : next(fd);
}

EXPORT int
fdatasync(int fd)
{
	NEXT(int, "fdatasync", int)
	return fails(K_DISK, "fdatasync", EIO) ? -1 : next(fd);
}

EXPORT int
ftruncate(int fd, off_t len)
{
	NEXT(int, "ftruncate", int, off_t)
	return fails(K_DISK, "ftruncate", ENOSPC) ? -1 : next(fd, len);
}

EXPORT int
ftruncate64(int fd, off64_t len)
{
	NEXT(int, "ftruncate64", int, off64_t)
	return fails(K_DISK, "ftruncate64", ENOSPC) ? -1 : next(fd, len);
}

EXPORT int
rename(const char *from, const char *to)
{
	NEXT(int, "rename", const char *, const char *)
	return fails(K_DISK, "rename", EIO) ? -1 : next(from, to);
}

/* --- a worker of the proxy -------------------------------------------------------- */

EXPORT int
execve(const char *path, char *const argv[], char *const envp[])
{
	char preload[512], *env[64];
	const char *self = getenv("LD_PRELOAD");
	size_t n = 0;
	NEXT(int, "execve", const char *, char *const *, char *const *)

	if (!self || !page)
		return next(path, argv, envp);
	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", self);
	for (; envp[n] && n < 62; n++)
		env[n] = envp[n];
	env[n++] = preload;
	env[n] = NULL;
	return next(path, argv, env);
}
