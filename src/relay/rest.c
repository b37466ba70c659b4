/* rest.c - after an engine's death: what was left of the small message that it had in its hands
 *
 *      peer --> [from's queue] --recv--> [copy place] --send--> [to's queue] --> peer
 *                                             `----write----> [pipe]
 *
 * Nobody reads or writes these sockets any more, so what the kernel says was read from one and not written to the
 * other (tcpsum.h) is what was on its way: `between`. Where it is follows from how far the engine had come:
 *
 *      pipe holds bytes          it is all there: the last step, one write of at most a page, is done or not
 *      len says n                the last `between` of these n; what came before them was sent
 *      len says 0                recv() was made and not noted, so nothing was sent: the first `between` bytes
 *
 * Always true: what does not fit together is an error. A lost pair is a loss, a wrong byte is worse.
 *
 * Not here: whose copy place it is, and the pipe that takes the rest (the keeper's).
 */
#include <errno.h>

#include "hyper/base/tcpsum.h"
#include "relay/engine.h"

int
relay_flow(int from_fd, int to_fd, uint64_t skip, uint64_t *ret_written, uint64_t *ret_between)
{
	uint64_t was_read = 0, written = 0;
	int rc = tcpsum_written(to_fd, &written);

	if (rc == 0)
		rc = tcpsum_read(from_fd, &was_read);
	if (rc < 0)
		return rc;
	if (was_read < skip || was_read - skip < written)
		return -EPROTO;
	*ret_written = written;
	*ret_between = was_read - skip - written;
	return 0;
}

int
relay_rest(const struct relay_copy *c, const struct relay_rest_of *of, const uint8_t **ret, size_t *ret_len)
{
	uint32_t len = __atomic_load_n(&c->len, __ATOMIC_ACQUIRE);
	uint64_t written = 0, between = 0, sent;
	int rc = relay_flow(of->from_fd, of->to_fd, of->skip, &written, &between);

	if (rc == -ENOTCONN) { /* it was reset: nothing that is left can arrive there */
		*ret_len = 0;
		return 0;
	}
	if (rc < 0)
		return rc;
	/* Each message is noted as delivered before the next one comes, so this one alone can be missing there. */
	if (written < of->delivered || len > RELAY_COPY_MAX)
		return -EPROTO;
	sent = written - of->delivered;
	if (between > RELAY_COPY_MAX || sent > len || (len > 0 && sent + between > len))
		return -EPROTO;
	if (of->piped > 0 && of->piped != between)
		return -EPROTO;
	*ret = len > 0 ? c->data + len - between : c->data;
	*ret_len = of->piped > 0 ? 0 : between;
	return 0;
}
