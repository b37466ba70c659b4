/* plane.c - what a stand-in for the proxy's hyper reads and says, in the text of JSON-RPC as it comes
 *
 * Always true: a message that has not what is looked for ends the program with its text, as anything unexpected does here.
 *
 * Not here: connections (http.c), who is brokered to whom (broker.c, t/unit/pair_load.c).
 */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "hyper/base/bytes.h"

void
plane_token(const char *body, uint8_t ret[TOKEN])
{
	const char *p = strstr(body, "\"token\":\"");
	char text[45];

	if (!p)
		bench_die("no token in: %.400s", body);
	snprintf(text, sizeof(text), "%.44s", p + 9);
	if (base64_decode(text, ret, TOKEN) != TOKEN)
		bench_die("a bad token in: %.400s", body);
}

/* Last member of the request: its id, which is ours to give back. */
void
plane_confirm(struct http *h, const char *body)
{
	const char *id = NULL;
	char answer[256];

	for (const char *p = body; (p = strstr(p, "\"id\":")) != NULL; p++)
		id = p;
	if (!id)
		bench_die("no id in: %.400s", body);
	snprintf(answer, sizeof(answer), "{\"jsonrpc\":\"2.0\",\"result\":{},%.180s", id);
	http_answer(h, answer);
}
