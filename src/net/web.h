/* web.h - the status page's files, made into strings by tools/embed from src/net/web/ */
#ifndef NET_WEB_H
#define NET_WEB_H

extern const char web_page_html[];
extern const char web_page_css[];
extern const char web_page_js[];

#endif
