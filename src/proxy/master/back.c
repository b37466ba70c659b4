/* back.c - see the header
 *
 * Always true:
 *  1. What back_go() needs is made before: it may run in a signal's handler, on memory
 *     that is damaged.
 *  2. The old program is the file that was executed, held by its descriptor: it may be
 *     deleted or replaced by now.
 *  3. It finds the memfd that it had left, with each descriptor under its old number.
 *
 * Not here: what the old program does with its state again (inherit.c).
 */
#include "proxy/master/back.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "proxy/master/upgrade.h"

#define ENV_MAX_WORDS 1024

static const int crashes[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };

static struct {
	bool is_armed;
	int program_fd, state_fd; /* -1: there is no way back */
	struct back_args args;
	char state_word[64];
	char why_word[sizeof(BACK_ENV_WHY) + BACK_WHY_MAX];
	char *envp[ENV_MAX_WORDS + 3];
	int *keep;
	size_t n_keep;
	struct sigaction was[ARRAY_LEN(crashes)];
} back = { .program_fd = -1, .state_fd = -1 };

int
back_args(struct back_args *ret)
{
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC), n = 0;
	ssize_t len = fd < 0 ? -1 : read(fd, ret->text, sizeof(ret->text));
	char *at = ret->text;

	fd_close(&fd);
	if (len <= 0 || len == (ssize_t)sizeof(ret->text) || ret->text[len - 1] != '\0')
		return -E2BIG;
	while (at < ret->text + len && n < BACK_ARGS_MAX) {
		ret->argv[n++] = at;
		at += strlen(at) + 1;
	}
	ret->argv[n] = NULL;
	return at == ret->text + len ? 0 : -E2BIG;
}

int
back_open(void)
{
	int fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int
back_offer(int program_fd, int state_fd, bool on)
{
	char text[64];
	int rc = fd_set_cloexec(program_fd, !on);

	snprintf(text, sizeof(text), "%d,%d", program_fd, state_fd);
	if (!on)
		unsetenv(BACK_ENV);
	else if (rc == 0 && setenv(BACK_ENV, text, 1) < 0)
		rc = -errno;
	return rc;
}

/* --- in the new program --- */

/* Nothing here but system calls and memory that was made before. */
static void
go(void)
{
	sigset_t set;
	size_t i;

	for (i = 0; i < back.n_keep; i++)
		(void)!fcntl(back.keep[i], F_SETFD, 0);
	(void)!fcntl(back.state_fd, F_SETFD, 0);
	/* A signal must find handlers; those of a crash cannot wait. */
	sigfillset(&set);
	for (i = 0; i < ARRAY_LEN(crashes); i++)
		sigdelset(&set, crashes[i]);
	sigprocmask(SIG_SETMASK, &set, NULL);
	syscall(SYS_execveat, back.program_fd, "", back.args.argv, back.envp, AT_EMPTY_PATH);
}

static void
on_crash(int signo)
{
	static const char text[] = "it was ended by signal ";
	char *at = back.why_word + sizeof(BACK_ENV_WHY);

	memcpy(at, text, sizeof(text));
	at += sizeof(text) - 1;
	*at++ = (char)('0' + signo / 10);
	*at++ = (char)('0' + signo % 10);
	*at = '\0';
	go();
	_exit(128 + signo);
}

static void
make_environment(void)
{
	size_t i, n = 0;

	for (i = 0; environ[i] && n < ENV_MAX_WORDS; i++)
		if (strncmp(environ[i], "HYPER_PROXY_", strlen("HYPER_PROXY_")) != 0)
			back.envp[n++] = environ[i];
	snprintf(back.state_word, sizeof(back.state_word), "%s=%d", UPGRADE_ENV_STATE, back.state_fd);
	snprintf(back.why_word, sizeof(back.why_word), "%s=", BACK_ENV_WHY);
	back.envp[n++] = back.state_word;
	back.envp[n++] = back.why_word;
}

void
back_arm(void)
{
	const char *offer = getenv(BACK_ENV);
	struct sigaction sa = { .sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND | SA_NODEFER };
	int program_fd, state_fd, n = 0;
	sigset_t set;

	if (back.is_armed || !offer)
		return;
	if (sscanf(offer, "%d,%d%n", &program_fd, &state_fd, &n) != 2 || offer[n] || program_fd < 3 || state_fd < 3 ||
	    fd_set_cloexec(program_fd, true) < 0 || back_args(&back.args) < 0) {
		unsetenv(BACK_ENV);
		return;
	}
	back.is_armed = true;
	back.program_fd = program_fd;
	back.state_fd = state_fd;
	unsetenv(BACK_ENV);
	make_environment();
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(crashes); i++) {
		sigaction(crashes[i], &sa, &back.was[i]);
		sigaddset(&set, crashes[i]);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL); /* who left had blocked all */
}

static void
count_one(int fd, void *arg)
{
	(void)fd;
	++*(size_t *)arg;
}

static void
keep_one(int fd, void *arg)
{
	(void)arg;
	back.keep[back.n_keep++] = fd;
}

void
back_keep(const struct state *s)
{
	int forgotten = -1;
	size_t n = 0;

	if (!back.is_armed)
		return;
	state_each_fd(s, count_one, &n);
	back.keep = calloc(n + 1, sizeof(*back.keep));
	if (back.keep)
		state_each_fd(s, keep_one, NULL);
	else
		forgotten = back_forget();
	fd_close(&forgotten);
}

void
back_go(const char *why)
{
	char *at = back.why_word + sizeof(BACK_ENV_WHY);

	back_arm();
	if (!back.is_armed)
		return;
	snprintf(at, BACK_WHY_MAX, "%s", why);
	log_flush();
	go();
	log_error("upgrade", "what=\"back to the old program\" err=\"%s\"", strerror(errno));
}

int
back_forget(void)
{
	int program_fd = back.program_fd;

	if (!back.is_armed)
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(crashes); i++)
		sigaction(crashes[i], &back.was[i], NULL);
	back.program_fd = -1;
	fd_close(&back.state_fd);
	free(back.keep);
	back.keep = NULL;
	back.n_keep = 0;
	back.is_armed = false;
	return program_fd;
}

bool
back_owns(int fd)
{
	return back.is_armed && fd == back.state_fd;
}
