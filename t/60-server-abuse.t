#!/usr/bin/perl
# Guards: garbage, floods, bombs and wrong certificates at a real server's two ports cost their sender the connection; calls go on, memory returns.
use strict;
use warnings;
use GrpcTest;
use H2Raw;
use HyperMesh;
use HyperTest;
use Test::More;

need_python();
my $m = mesh(directory => 'json');
my $d = $m->{'hd-2'};
my ($grpc, $rpc) = @{ $m->{port} }{qw(hd-2.grpc hd-2.rpc)};
my $dir = certs();

sub serves_on { return is($m->ping->{result}{serverInfo}{name}, 'hd-2', "$_[0]: calls go on") }

# Does hd-2 talk HTTP/2 with whoever sends this? It acknowledges SETTINGS then.
sub is_served {
	my (%tls) = @_;
	my $s = h2_tls($grpc, %tls) or return 0;
	send_all($s, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . settings());
	return scalar grep { $_->[0] eq 'SETTINGS' && $_->[1] & 1 } frames_of($s, sub { $_[0][0] eq 'SETTINGS' && $_[0][1] & 1 });
}

# Another CA with the same names
my $t = tmp();
for ([ 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$t/evil.key", '-out', "$t/evil.crt", '-subj', '/CN=evil', '-days', '2' ],
	[ 'req', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$t/forged.key", '-out', "$t/forged.csr", '-subj', '/CN=hd-1' ],
	[ 'x509', '-req', '-in', "$t/forged.csr", '-CA', "$t/evil.crt", '-CAkey', "$t/evil.key", '-CAcreateserial', '-out', "$t/forged.crt", '-days', '2' ]) {
	my ($code, undef, $err) = run_program([ 'openssl', @$_ ]);
	is($code, 0, "openssl $_->[0]") or diag($err);
}

# One round of everything that a stranger may do.
sub abuse {
	my ($round) = @_;
	# --- certificates at the gRPC port ---
	ok(is_served(), "$round: hd-1 is served");
	for my $c (
		[ 'no certificate', qr/ info grpc_refused reason=tls .*did not return a certificate/, SSL_cert_file => undef, SSL_key_file => undef, SSL_use_cert => 0 ],
		[ 'one of another CA', qr/TLS handshake with .*: unable to get local issuer certificate/, SSL_cert_file => "$t/forged.crt", SSL_key_file => "$t/forged.key" ],
		[ 'one of the CA that the directory does not pin', qr/ grpc_refused peer=hd-1 .*no name matched/, SSL_cert_file => "$dir/hd-1-alt.crt", SSL_key_file => "$dir/hd-1-alt.key" ],
	) {
		my ($what, $why, %tls) = @$c;
		is(is_served(%tls), 0, "$round: $what is not served");
		ok($d->wait_log($why), "$round: $what: the log says why") or diag($d->log_tail);
	}

	# --- bytes that are no HTTP/2, frames that are wrong ---
	my $h = grpc_headers();
	for my $c (
		[ 'HTTP/1.1', sub { my $s = h2_tls($grpc); send_all($s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); $s } ],
		[ 'bytes that are no frames', sub { h2_open($grpc, "\xff" x 20000) } ],
		[ 'HEADERS on an even stream', sub { h2_open($grpc, headers(2, $h)) } ],
		[ 'DATA on an idle stream', sub { h2_open($grpc, frame('DATA', 0, 5, 'x')) } ],
		[ 'a frame over the size limit', sub { h2_open($grpc, frame('DATA', 0, 1, 'x' x 20000)) } ],
		[ 'CONTINUATION without HEADERS', sub { h2_open($grpc, frame('CONTINUATION', 4, 1, $h)) } ],
		[ 'HPACK nonsense', sub { h2_open($grpc, headers(1, "\xff" x 9)) } ],
		[ 'endless CONTINUATION', sub { h2_open($grpc, join '', frame('HEADERS', 0, 1, $h), map { frame('CONTINUATION', 0, 1, literal("x$_" => 'y')) } 1 .. 200) } ],
	) {
		my ($what, $open) = @$c;
		my @f = frames_of($open->());
		is($f[-1][0], 'EOF', "$round: $what: the connection is closed");
	}
	my $n = 0;
	for my $c ([ 'PING', sub { frame('PING', 0, 0, 'floodedx') x 1000 } ], [ 'SETTINGS', sub { settings() x 1000 } ],
		[ 'rapid reset', sub { join '', map { headers(++$n * 2 + 1, $h) . frame('RST_STREAM', 0, $n * 2 + 1, pack 'N', 8) } 1 .. 200 } ]) {
		my ($what, $bytes) = @$c;
		my ($s, $sent) = (h2_open($grpc), 0);
		$sent++ while $sent < 2000 && send_all($s, $bytes->());
		cmp_ok($sent, '<', 2000, "$round: $what flood: cut off");
	}

	# --- messages, by a client that we did not write ---
	my %r = py_client('hd-1', $grpc, 'hd-2', 'hostile');
	for my $case ('nested', 'nested, 200 kB', 'malformed') {
		is_deeply($r{$case}{status}, [ 13, 'malformed request' ], "$round: $case: a clear status");
		is_deeply($r{"$case, ServerCall"}{status}, [ 2, 'invalid client announcement' ], "$round: $case as an announcement likewise");
	}
	is($r{'over the limit'}{status}[0], 8, "$round: 5 MB: RESOURCE_EXHAUSTED");
	is($r{'after all that'}{ok}, 'hd-2._ping(1)', "$round: the same connection serves on");

	# --- the JSON-RPC port: who ---
	my $a = rpc("https://hd-2:$rpc/jsonrpc", 'hd-2._ping', {});
	isnt($a->{curl}, 0, "$round: JSON-RPC without a certificate: no connection");
	for my $cert ('hd-1', 'demo-app', 'public-proxy-1.ga') {
		$a = rpc("https://hd-2:$rpc/jsonrpc", 'hd-2._ping', {}, cert => $cert);
		is("$a->{http} $a->{error}{code}", '403 403', "$round: JSON-RPC as $cert, an operator of the same CA: 403");
		like($a->{error}{message}, qr/\Q$cert\E.*allowed_clients/, "$round: and what would be needed");
	}
	ok($d->wait_log(qr/ info refused .*allowed_clients/), "$round: the log says so too");
	# ... and what
	my $wrap = sub { return '{"jsonrpc":"2.0","id":"1","method":"hd-2._ping","params":{"x":' . $_[0] . '}}' };
	for my $c (
		[ '5 MB', 'x' x 5_000_000, 413, -32700 ],
		[ '10,000 deep', $wrap->('[' x 10_000 . ']' x 10_000), 400, -32700 ],
		[ 'a million empty objects', $wrap->('[' . '{},' x 1_000_000 . '1]'), 400, -32700 ],
		[ 'duplicate keys', $wrap->('{"a":1,"a":2}'), 400, -32700 ],
		[ 'no JSON', "\x00\xff" x 1000, 400, -32700 ],
		[ 'a list', '[' . $wrap->('1') . ']', 400, -32700 ],
	) {
		my ($what, $body, $http, $code) = @$c;
		$a = $m->call('', undef, at => 'hd-2', body => $body);
		is("$a->{http} $a->{error}{code}", "$http $code", "$round: JSON-RPC, $what: refused") or diag(substr json_text($a), 0, 500);
	}
	return serves_on($round);
}

serves_on('at first');
my ($fds, $rss, $pairs) = ($d->fds, $d->rss, $m->{proxy}->count_log(qr/ pair session=/));
abuse('first round');
my $after = $d->rss;
abuse("round $_") for 2 .. 4;
ok((wait_until { $d->fds <= $fds }), 'descriptors are back') or diag($d->fds, " after $fds");
SKIP: {
	skip 'sanitizers keep freed memory on purpose', 2 if read_file(build() . '/config.h') =~ /define HYPER_SANITIZE/;
	cmp_ok($d->rss - $rss, '<', 16_384, 'memory returns: within 16 MB of what it was before') or diag($d->rss, " after $rss");
	cmp_ok($d->rss - $after, '<', 4096, 'and three more rounds cost nothing') or diag($d->rss, " after $after");
}
is($m->{proxy}->count_log(qr/ pair session=/), $pairs, 'the connection that hd-1 and hd-2 had is still the one they use');
hyper_done();
