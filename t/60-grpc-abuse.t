#!/usr/bin/perl
# Guards: garbage and floods cost their sender the connection; our gRPC server serves on, descriptors and memory return.
use strict;
use warnings;
use GrpcTest;
use H2Raw;
use HyperTest;
use Test::More;

my $echo = start('echo', [ build() . '/t/unit/grpc_echo', certs(), 'hd-2' ]);
my $port = $echo->ready('port');
my $fds = $echo->fds;

sub serves_on {
	my @l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.echo', '{"a":1}');
	is_deeply($l[0]{response}{result}, { a => 1 }, "the server serves on after $_[0]");
}

# What the server closes, and what it then says in its log.
sub refused {
	my ($what, $sock, $bytes, $why) = @_;
	my $before = $echo->count_log(qr/ closed .*$why/);
	send_all($sock, $bytes);
	ok((wait_until { $echo->count_log(qr/ closed .*$why/) > $before }), "$what: closed ($why)")
	    or diag(join "\n", (split /\n/, $echo->log_text)[-3 .. -1]);
	close $sock;
}

# --- before HTTP/2 ---
my $silent = connect_to($port);    # closed by the handshake's deadline, below
refused('plain text', connect_to($port), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 'TLS handshake with .*(http request|wrong version)');
refused('random bytes', connect_to($port), join('', map { chr(($_ * 7919) % 251) } 1 .. 3000), 'TLS handshake with');
my $half = connect_to($port);
send_all($half, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . 'r' x 20);
close $half;
ok($echo->wait_log(qr/TLS handshake with .*the peer closed/), 'half a ClientHello and gone');
my $no_alpn = h2_tls($port, SSL_alpn_protocols => ['http/1.1']);
ok(!$no_alpn || frames_of($no_alpn), 'another ALPN protocol is refused');
my $none = h2_tls($port, SSL_alpn_protocols => undef);
refused('no ALPN', $none, '', 'ALPN h2') if $none;
refused('HTTP/1.1 over TLS', h2_tls($port), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 'HTTP/2: .*magic');
refused('bytes that are no frames', h2_open($port), "\xff" x 20000, 'HTTP/2|reset');
serves_on('bytes of all kinds');

# --- frames that are wrong ---
my $h = grpc_headers();
my @wrong = (
	[ 'HEADERS on an even stream', headers(2, $h) ],
	[ 'HEADERS on stream 0', headers(0, $h) ],
	[ 'DATA on an idle stream', frame('DATA', 0, 5, 'x') ],
	[ 'a frame over the size limit', frame('DATA', 0, 1, 'x' x 20000) ],
	[ 'CONTINUATION without HEADERS', frame('CONTINUATION', 4, 1, $h) ],
	[ 'HPACK nonsense', headers(1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff") ],
	[ 'a pushed stream', frame('PUSH_PROMISE', 4, 1, pack('N', 2) . $h) ],
	[ 'a window over 2^31', frame('WINDOW_UPDATE', 0, 0, pack('N', 0x7fffffff)) ],
	[ 'SETTINGS with half an entry', frame('SETTINGS', 0, 0, 'abc') ],
	[ 'SETTINGS with 40 entries', settings(map { $_ => 1 } 100 .. 139) ],
	[ 'a PING of 7 bytes', frame('PING', 0, 0, 'x' x 7) ],
	[ '20 CONTINUATION frames', join '', frame('HEADERS', 0, 1, $h), map { frame('CONTINUATION', 0, 1, literal("x$_" => 'y')) } 1 .. 20 ],
);
refused($_->[0], h2_open($port), $_->[1], 'reset') for @wrong;
serves_on('frames that are wrong');

# --- requests that are no gRPC ---
for my $c ([ 'GET', [ ':method' => 'GET' ], '405' ], [ 'a page', [ 'content-type' => 'text/html' ], '415' ]) {
	my $s = h2_open($port, headers(1, grpc_headers(@{ $c->[1] }), end => 1));
	my @f = frames_of($s, sub { $_[0][0] eq 'HEADERS' });
	my ($head) = grep { $_->[0] eq 'HEADERS' } @f;
	ok($head && $head->[1] & 1, "$c->[0]: answered and ended");
	like($head->[3] // '', qr/\Q$c->[2]\E|\x08|^\x48/, "$c->[0]: HTTP status $c->[2]");
	close $s;
}
my $s = h2_open($port, headers(1, grpc_headers(map { ("x-$_" => 'v' x 3000) } 1 .. 5)));
ok((grep { $_->[0] eq 'HEADERS' || $_->[0] eq 'RST_STREAM' } frames_of($s, sub { $_[0][0] eq 'RST_STREAM' }, 1)) == 0, '15 KB of headers pass');
my $block = grpc_headers(map { ("x-$_" => 'v' x 3000) } 1 .. 6);
send_all($s, frame('HEADERS', 0, 3, substr $block, 0, 16000) . frame('CONTINUATION', 4, 3, substr $block, 16000));
ok((grep { $_->[0] eq 'RST_STREAM' && $_->[2] == 3 } frames_of($s, sub { $_[0][0] eq 'RST_STREAM' })), '18 KB reset the stream');
send_all($s, frame('PING', 0, 0, 'still up'));
ok((grep { $_->[0] eq 'PING' && $_->[1] == 1 && $_->[3] eq 'still up' } frames_of($s, sub { $_[0][0] eq 'PING' })), 'and the connection is up');
close $s;

# --- floods ---
my $rss = $echo->rss;
my $n = 0;
my %flood = (
	'PING' => [ sub { frame('PING', 0, 0, 'floodedx') x 1000 }, 'too many frames|[Ff]lood' ],
	'SETTINGS' => [ sub { settings() x 1000 }, 'too many frames|[Ff]lood' ],
	# what was wrong with one stream, or said in parting, does not end the counting
	'WINDOW_UPDATE after a bad header' => [ sub { ($n++ ? '' : headers(1, $h . literal('bad name' => 'v'))) . frame('WINDOW_UPDATE', 0, 0, pack 'N', 1) x 1000 }, 'too many frames' ],
	'WINDOW_UPDATE after GOAWAY' => [ sub { ($n++ ? '' : headers(1, $h) . frame('GOAWAY', 0, 0, pack 'NN', 0, 0)) . frame('WINDOW_UPDATE', 0, 0, pack 'N', 1) x 1000 }, 'too many frames' ],
	'empty DATA' => [ sub { ($n++ ? '' : headers(1, $h)) . frame('DATA', 0, 1) x 1000 }, 'too many frames' ],
	'WINDOW_UPDATE' => [ sub { frame('WINDOW_UPDATE', 0, 0, pack 'N', 1) x 1000 }, 'too many frames' ],
	'PRIORITY' => [ sub { frame('PRIORITY', 0, 3, pack 'NC', 1, 1) x 1000 }, 'too many frames' ],
	'rapid reset' => [ sub { join '', map { headers(++$n * 2 + 1, $h) . frame('RST_STREAM', 0, $n * 2 + 1, pack 'N', 8) } 1 .. 200 }, 'reset' ],
	'resets the server owes' => [ sub { join '', map { headers(++$n * 2 + 1, $h) . frame('WINDOW_UPDATE', 0, $n * 2 + 1, pack 'N', 0) } 1 .. 200 }, 'reset' ],
);
for my $what (sort keys %flood) {
	my ($bytes, $why) = @{ $flood{$what} };
	$n = 0;
	my $sock = h2_open($port);
	my $before = $echo->count_log(qr/ closed .*$why/);
	my $sent = 0;
	$sent++ while $sent < 2000 && send_all($sock, $bytes->());    # never reads
	cmp_ok($sent, '<', 2000, "$what flood: cut off");
	ok((wait_until { $echo->count_log(qr/ closed .*$why/) > $before }), "$what flood: closed")
	    or diag(join "\n", (split /\n/, $echo->log_text)[-3 .. -1]);
	close $sock;
}
serves_on('floods');

# A peer that opens 100 streams, lets each answer wait, and grants no window: bounded, and others are served.
my $greedy = h2_open($port, settings(4 => 0), map { headers($_ * 2 + 1, grpc_headers(':path' => '/Hyper/Call')) } 0 .. 149);
# all fifty, and a moment for one too many
my @reset = grep { $_->[0] eq 'RST_STREAM' } frames_of($greedy, sub { 50 <= grep { $_->[0] eq 'RST_STREAM' } @{ $_[1] } }), frames_of($greedy, undef, 0.3);
is(scalar @reset, 50, 'of 150 streams 50 are refused');
serves_on('a greedy peer');
close $greedy;

ok((wait_until { $echo->fds <= $fds + 1 }), 'descriptors are back, but for the silent one');
ok($echo->wait_log(qr/ closed reason=deadline why="TLS handshake with .* not done within 5000 ms/), 'the silent one is closed by the deadline');
ok((wait_until { $echo->fds <= $fds }), 'and its descriptor is back');
# Strangers take all of the 64 places and never speak: somebody with a certificate gets one of theirs.
{
	my @strangers = map { connect_to($port) } 1 .. 70;
	ok((wait_until { $echo->fds >= $fds + 64 }), 'all places are taken');
	my @l;
	ok((wait_until { @l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.echo', '{"a":2}'); ($l[0]{response} // {})->{result} }), 'a call is served all the same')
	    or diag(json_text(\@l));
	cmp_ok($echo->count_log(qr/ closed reason=busy why=.*stood still, made room/), '>=', 1, 'one that stood still in its handshake made room');
	cmp_ok($echo->count_log(qr/ closed reason=busy /), '<', 32, 'and not all of them');
	close $_ for @strangers;
}
ok((wait_until { $echo->fds <= $fds }), 'descriptors are back after the strangers');

cmp_ok($echo->rss - $rss, '<', 65536, 'memory is bounded') or diag($echo->rss, ' after ', $rss);
is($echo->stop, 0, 'stops cleanly');
hyper_done();
