#!/usr/bin/perl
# The JSON-RPC server answers each good request once, refuses each bad one in words, and is the same afterwards.
use strict;
use warnings;
use HyperTest;
use RpcEcho;
use Test::More;

my $d = echo_start(cors => '^https?://good\.example$');
my $port = $d->ready('port');
my $url = "http://127.0.0.1:$port/jsonrpc";

sub error_of { my ($a) = @_; return eval { json_value($a->[2])->{error} } // {} }

# name, bytes, status, pattern of the body. Each ends the connection.
my $close = "Connection: close\r\n";
my $chunked = "Transfer-Encoding: chunked\r\n";
my $deep = '{"jsonrpc":"2.0","method":"echo","id":"1","params":{"a":' . '[' x 10000 . ']' x 10000 . '}}';
my @cases = (
	[ 'a good request',       request('echo', { a => 1 }, head => $close), 200, qr/"result":\{"a":1\},"id":"1"/ ],
	[ 'an error of a method', request('fail', {}, head => $close), 400, qr/"code":7,"message":"failed as asked","data":\{"why":"asked"\}/ ],
	[ 'unknown method',       request('nope', {}, head => $close), 400, qr/-32601/ ],
	[ 'query is ignored',     request('echo', {}, head => $close) =~ s{/jsonrpc}{/jsonrpc?a=b&/x}r, 200, qr/"result":\{\}/ ],
	[ 'absolute target',      request('echo', {}, head => $close) =~ s{/jsonrpc}{http://x:1/jsonrpc}r, 200, qr/"result":\{\}/ ],
	[ 'empty lines first',    "\r\n\r\n" . request('echo', {}, head => $close), 200, qr/"result":\{\}/ ],
	[ 'media type in capitals with parameters', request('echo', {}, head => $close) =~ s{application/json}{Application/JSON ; charset=utf-8}r, 200, qr/"result"/ ],
	[ 'HTTP/1.0 without keep-alive', request('echo', {}) =~ s{1\.1}{1.0}r, 200, qr/"result"/ ],
	[ 'integer id',           request('echo', {}, head => $close, body => '{"jsonrpc":"2.0","method":"echo","params":{},"id":5}'), 200, qr/"id":5\}/ ],
	[ 'chunked',              request('', {}, head => $close . $chunked, no_length => 1, body =>
		    "2D;ext=1\r\n" . '{"jsonrpc":"2.0","method":"echo","params":{},' . "\r\n8\r\n" . '"id":"c"' . "\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n"), 200, qr/"id":"c"/ ],

	[ 'another path',         request('echo', {}, head => $close) =~ s{/jsonrpc}{/jsonrpc/}r, 404, qr/^\{"message":"not found"\}$/ ],
	[ 'another path, body unread', request('echo', { x => 'y' x 100000 }) =~ s{/jsonrpc}{/}r, 404, qr/not found/ ],
	[ 'GET',                  "GET /jsonrpc HTTP/1.1\r\nHost: x\r\n\r\n", 405, qr/POST is expected/ ],
	[ 'an unheard-of method', "FROB /jsonrpc HTTP/1.1\r\nHost: x\r\n\r\n", 405, qr/POST is expected/ ],
	[ 'text/plain',           request('echo') =~ s{application/json}{text/plain}r, 400, qr/-32700.*JSON required/ ],
	[ 'application/jsonx',    request('echo') =~ s{application/json}{application/jsonx}r, 400, qr/JSON required/ ],
	[ 'no media type',        request('echo') =~ s{Content-Type: application/json\r\n}{}r, 400, qr/JSON required/ ],
	[ 'no body',              request('', {}, head => $close, body => ''), 400, qr/-32700/ ],
	[ 'no length at all',     request('', {}, head => $close, body => '', no_length => 1), 400, qr/-32700/ ],
	[ 'garbage for JSON',     request('', {}, head => $close, body => "\x00\x01\xff{{{"), 400, qr/-32700/ ],
	[ 'an array (batch)',     request('', {}, head => $close, body => '[{"jsonrpc":"2.0","method":"echo","params":{},"id":"1"}]'), 400, qr/-32700/ ],
	[ 'bytes behind the JSON', request('', {}, head => $close, body => '{"jsonrpc":"2.0","method":"echo","params":{},"id":"1"} x'), 400, qr/-32700/ ],
	[ 'duplicate keys',       request('', {}, head => $close, body => '{"jsonrpc":"2.0","method":"echo","method":"echo","params":{},"id":"1"}'), 400, qr/-32700/ ],
	[ '10,000 deep',          request('', {}, head => $close, body => $deep), 400, qr/-32700/ ],
	[ 'wrong version',        request('', {}, head => $close, body => '{"jsonrpc":"1.0","method":"echo","params":{},"id":"1"}'), 400, qr/-32600/ ],
	[ 'params as a list',     request('', {}, head => $close, body => '{"jsonrpc":"2.0","method":"echo","params":[],"id":"1"}'), 400, qr/-32600/ ],

	[ '5 MB announced',       "POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\n\r\n" . ' ' x 5000000, 413, qr/-32700.*limit is 4194304/ ],
	[ '5 MB in chunks',       request('', {}, head => $chunked, no_length => 1, body => ("10000\r\n" . ' ' x 65536 . "\r\n") x 76 . "0\r\n\r\n"), 413, qr/limit of 4194304/ ],
	[ 'one huge chunk',       request('', {}, head => $chunked, no_length => 1, body => "FFFFFFFF\r\n"), 413, qr/limit/ ],
	[ 'length and chunked',   request('echo', {}, head => $chunked), 400, qr/exclude each other/ ],
	[ 'chunked and length',   request('echo', {}) =~ s{Host}{Transfer-Encoding: chunked\r\nHost}r, 400, qr/exclude each other/ ],
	[ 'two lengths',          request('echo', {}, head => "Content-Length: 5\r\n"), 400, qr/Content-Length/ ],
	[ 'a list of lengths',    request('echo', {}) =~ s{Length: (\d+)}{Length: $1, $1}r, 400, qr/Content-Length/ ],
	[ 'a signed length',      request('echo', {}) =~ s{Length: (\d+)}{Length: +$1}r, 400, qr/Content-Length/ ],
	[ 'gzip, chunked',        request('echo', {}, head => "Transfer-Encoding: gzip, chunked\r\n", no_length => 1), 501, qr/only chunked/ ],
	[ 'a chunk size that is none', request('', {}, head => $chunked, no_length => 1, body => "xyz\r\n"), 400, qr/malformed/ ],
	[ 'a chunk longer than said', request('', {}, head => $chunked, no_length => 1, body => "1\r\nab\r\n0\r\n\r\n"), 400, qr/malformed/ ],
	[ 'an endless chunk extension', request('', {}, head => $chunked, no_length => 1, body => '1;' . 'a' x 1000), 400, qr/malformed/ ],
	[ 'endless trailers',     request('', {}, head => $chunked, no_length => 1, body => "0\r\n" . "a: b\r\n" x 2000), 400, qr/malformed/ ],

	[ 'no Host',              request('echo', {}) =~ s{Host: x\r\n}{}r, 400, qr/Host/ ],
	[ 'two Hosts',            request('echo', {}, head => "Host: y\r\n"), 400, qr/Host/ ],
	[ 'a folded line',        request('echo', {}, head => "X: a\r\n b\r\n"), 400, qr/without folding/ ],
	[ 'space before a colon', request('echo', {}, head => "X : a\r\n"), 400, qr/header line/ ],
	[ 'a line feed alone',    "POST /jsonrpc HTTP/1.1\nHost: x\n\n", 400, qr/not HTTP/ ],
	[ 'a NUL in the head',    "POST /jsonrpc HTTP/1.1\r\nX: \0\r\n\r\n", 400, qr/not HTTP/ ],
	[ '20 kB of headers',     "POST /jsonrpc HTTP/1.1\r\nX: " . 'a' x 20000 . "\r\n\r\n", 431, qr/limit of 16384/ ],
	[ '200 headers',          request('echo', {}, head => "X: a\r\n" x 200), 400, qr/header line/ ],
	[ 'one word',             "hello\r\n\r\n", 400, qr/METHOD/ ],
	[ 'HTTP/2',               "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, qr/only HTTP/ ],
	[ 'HTTP/0.9',             "GET /\r\n\r\n", 400, qr/METHOD/ ],
	[ 'TLS on the plain port', "\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03", 400, qr/no TLS/ ],
	[ 'another expectation',  request('echo', {}, head => "Expect: 200-ok\r\n"), 417, qr/100-continue/ ],
);

for my $c (@cases) {
	my ($name, $bytes, $status, $body) = @$c;
	my ($end, @a) = exchange($port, $bytes);
	is($end, 'eof', "$name: ended cleanly");
	is(scalar @a, 1, "$name: one answer") or diag(explain(\@a));
	is($a[0][0], $status, "$name: $status") or diag($a[0][2]);
	like($a[0][2], $body, "$name: says why");
	like($a[0][1], qr/^Content-Type: application\/json; charset=utf-8\r$/m, "$name: answered in JSON");
	like($a[0][1], qr/^Allow: POST, OPTIONS\r$/m, "$name: says what is allowed") if $status == 405;
}
serves_on($d, 'after every bad request');

# Several requests on one connection.
{
	my $many = join '', map { request('echo', { n => $_ }, id => "p$_", head => $_ == 200 ? $close : '') } 1 .. 200;
	my ($end, @a) = exchange($port, $many);
	is($end, 'eof', 'pipelining: ended when asked to');
	is_deeply([ map { $_->[0] } @a ], [ (200) x 200 ], 'pipelining: 200 answers to 200 requests in one write');
	is_deeply([ map { json_value($_->[2])->{id} } @a ], [ map { "p$_" } 1 .. 200 ], 'pipelining: in order');

	my $s = connect_to($port);
	for my $body ('{', '{"jsonrpc":"2.0","method":"echo","params":{},"id":"9"}') {
		syswrite $s, request('', {}, body => $body);
		my $data = '';
		wait_until { sysread $s, $data, 65536, length $data; answers($data) && (answers($data))[-1][2] } 5;
		like($data, $body eq '{' ? qr/^HTTP\/1.1 400/ : qr/^HTTP\/1.1 200/, 'keep-alive outlives a JSON error');
	}
	close $s;

	($end, @a) = exchange($port, [ "GET /nope HTTP/1.1\r\nHost: x\r\n\r\n" . request('echo', {}, head => $close) ]);
	is_deeply([ map { $_->[0] } @a ], [ 404, 200 ], 'keep-alive outlives a 404 without a body');

	($end, @a) = exchange($port, request('echo', {}) =~ s{/jsonrpc}{/nope}r . request('echo', {}, head => $close));
	is_deeply([ map { $_->[0] } @a ], [404], 'what follows a refused body is not taken for a request');

	my $slow = request('slow', { ms => 300 }, id => 's') . request('echo', {}, id => 'e', head => $close);
	($end, @a) = exchange($port, $slow);
	is_deeply([ map { json_value($_->[2])->{id} } @a ], [ 's', 'e' ], 'a request behind a slow one waits its turn');
	echo_fds_settle($d, 'keep-alive');
}

# Half-close, one byte at a time, 100 Continue.
{
	my $s = connect_to($port);
	syswrite $s, request('slow', { ms => 200 }, id => 'half');
	shutdown $s, 1;
	my ($data, $end) = read_to_end($s);
	like($data, qr/"id":"half"/, 'a client that ended its side still gets its answer');
	is($end, 'eof', 'half-close: then the end');

	my @bytes = split //, request('echo', { bytes => 'one by one' }, head => $close);
	my @a;
	($end, @a) = exchange($port, \@bytes);
	like($a[0][2], qr/one by one/, 'a request may come byte by byte');

	$s = connect_to($port);
	my ($head, $body) = split /(?<=\r\n\r\n)/, request('echo', { big => 1 }, head => "Expect: 100-continue\r\n$close"), 2;
	syswrite $s, $head;
	is(read_exactly($s, 25), "HTTP/1.1 100 Continue\r\n\r\n", 'Expect: 100-continue is answered');
	syswrite $s, $body;
	($data, $end) = read_to_end($s);
	like($data, qr/^HTTP\/1.1 200.*"big":1/s, 'and so is the request');

	$s = connect_to($port);
	syswrite $s, "POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n";
	like(read_exactly($s, 12), qr/^HTTP\/1.1 413/, 'Expect: 100-continue for too much is refused before it is sent');
	close $s;
	echo_fds_settle($d, 'half-close');
}

# A body near the limit, by curl.
{
	my $big = 'x' x (4 * 1024 * 1024 - 200);
	my $r = rpc($url, 'echo', { big => $big });
	is($r->{http}, 200, 'a body just below 4 MiB is served');
	is(length($r->{result}{big} // ''), length $big, 'and comes back whole');
}

# CORS
{
	my ($end, @a) = exchange($port, "OPTIONS /jsonrpc HTTP/1.1\r\nHost: x\r\nOrigin: https://good.example\r\n"
		    . "Access-Control-Request-Headers: X-Foo, Content-Type\r\n$close\r\n");
	is($a[0][0], 200, 'preflight: 200');
	is($a[0][2], '', 'preflight: empty');
	like($a[0][1], qr/^Access-Control-Allow-Origin: https:\/\/good\.example\r$/m, 'preflight: the origin');
	like($a[0][1], qr/^Access-Control-Allow-Headers: x-foo, content-type, x-extra\r$/m, 'preflight: the headers');
	like($a[0][1], qr/^Access-Control-Allow-Methods: POST, OPTIONS\r$/m, 'preflight: the methods');
	like($a[0][1], qr/^Access-Control-Max-Age: 60\r$/m, 'preflight: for how long');

	($end, @a) = exchange($port, request('echo', {}, head => "Origin: https://good.example\r\n$close") =~ s{/jsonrpc}{/x}r);
	like($a[0][1], qr/Access-Control-Allow-Origin/, 'also on a 404');

	for my $origin ('https://good.example.evil.org', 'https://evil.org', 'x' x 1000) {
		($end, @a) = exchange($port, "OPTIONS /jsonrpc HTTP/1.1\r\nHost: x\r\nOrigin: $origin\r\n\r\n");
		is($a[0][0], 405, 'another origin: refused');
		unlike($a[0][1], qr/Access-Control/, 'another origin: no header');
	}
}
serves_on($d, 'at the end');
is($d->stop, 0, 'ends with 0');
hyper_done();
