/* listing.c - the option tables as flat rows with dotted keys
 *
 * "channels[].name" is a key of each element of a list; where the keys depend
 * on the element's type it stands in the brackets: "channels[grpc_server].settings.tls".
 *
 * Built once, when first asked for, and kept until the process ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "settings/option.h"

#define ROWS_MAX   256
#define PREFIX_MAX 160

struct listing {
	struct settings_option row[ROWS_MAX];
	size_t n;
};

static const char *const listed_tab[] = {
#define X(n, listed, expected) listed,
	CFG_TYPES(X)
#undef X
};

static const char *
keep(const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	return copy ? copy : "";
}

static void
add_row(struct listing *l, const struct cfg_option *o, const char *key)
{
	char type[64], range[256] = "", def[64] = "";
	bool is_text = o->type < CFG_T_BOOL || o->type == CFG_T_WORD;
	size_t n = 0;

	if (l->n == ROWS_MAX)
		return;
	snprintf(type, sizeof(type), "%s%s", o->is_list ? "list of " : "", listed_tab[o->type]);
	if (o->type == CFG_T_INTEGER || o->type == CFG_T_SECONDS)
		snprintf(range, sizeof(range), "%.12g..%.12g", o->min, o->max);
	for (const struct cfg_word *w = o->words; w && w->word && n < sizeof(range); w++)
		n += (size_t)snprintf(range + n, sizeof(range) - n, "%s%s", n ? " " : "", w->word);
	if (o->is_required)
		snprintf(def, sizeof(def), "required");
	else if (o->def && is_text)
		snprintf(def, sizeof(def), o->is_list ? "[ \"%s\" ]" : "\"%s\"", o->def);
	else if (o->def)
		snprintf(def, sizeof(def), "%s", o->def);
	l->row[l->n++] = (struct settings_option){
		.key = keep(key),
		.type = keep(type),
		.range = keep(range),
		.def = keep(def),
		.unit = o->unit ? o->unit : "",
		.help = o->help,
		.reload = !o->needs_restart,
	};
}

static void
add_table(struct listing *l, const struct cfg_option *o, const char *prefix)
{
	char key[PREFIX_MAX], sub[PREFIX_MAX + 32];
	size_t head = strlen(prefix);

	for (; o->key; o++) {
		if (o->type == CFG_T_REFUSED)
			continue;
		snprintf(key, sizeof(key), "%s%s%s", prefix, head ? "." : "", o->key);
		add_row(l, o, key);
		if (o->type == CFG_T_GROUP)
			add_table(l, o->sub, key);
		if (o->type == CFG_T_GROUPS) {
			snprintf(sub, sizeof(sub), "%.*s[]", PREFIX_MAX - 3, key);
			add_table(l, o->sub, sub);
		}
		if (o->type != CFG_T_VARIANT)
			continue;
		for (const struct cfg_word *w = o->tags; w->word; w++) {
			bool is_element = head > 2 && strcmp(prefix + head - 2, "[]") == 0;

			if (is_element)
				snprintf(sub, sizeof(sub), "%.*s[%s].%s", (int)head - 2, prefix, w->word, o->key);
			add_table(l, o->variants[w->value].sub, is_element ? sub : key);
		}
	}
}

const struct settings_option *
settings_options(const char *program, size_t *ret_n)
{
	static const struct cfg_program *const programs[] = { &cfg_hyper, &cfg_sd, &cfg_proxy };
	static struct listing *made[ARRAY_LEN(programs)];

	for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
		if (strcmp(program, programs[i]->name) != 0)
			continue;
		if (!made[i])
			made[i] = calloc(1, sizeof(*made[i]));
		if (!made[i])
			return NULL;
		if (made[i]->n == 0)
			add_table(made[i], programs[i]->options, "");
		*ret_n = made[i]->n;
		return made[i]->row;
	}
	return NULL;
}
