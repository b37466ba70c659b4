#!/usr/bin/perl
# No client can hold the JSON-RPC server up: dripping, silence, floods, vanishing and slow reading all end at a limit.
use strict;
use warnings;
use HyperTest;
use RpcEcho;
use Socket qw(AF_INET INADDR_LOOPBACK SOCK_STREAM SOL_SOCKET SO_RCVBUF pack_sockaddr_in);
use Test::More;
use Time::HiRes qw(time);

# What has come once it matches, or once the deadline is over.
sub read_until {
	my ($s, $re, $seconds) = @_;
	my $data = '';
	wait_until { sysread $s, $data, 65536, length $data if HyperTest::readable_until($s, time + 0.1); $data =~ $re } $seconds // 10;
	return $data;
}

# A request that drips in is cut by a deadline that its bytes do not move.
{
	my $ms = 1500 * slow_factor();
	my $d = echo_start(timeout => $ms);
	my $port = $d->ready('port');
	for my $c ([ 'head', "POST /jsonrpc HTTP/1.1\r\n" . 'X: y' x 1000 ], [ 'body', request('', {}, body => ' ' x 10000) ],
		[ 'chunks', request('', {}, head => "Transfer-Encoding: chunked\r\n", no_length => 1, body => "1\r\n \r\n" x 1000) ]) {
		my ($name, $bytes) = @$c;
		my $s = connect_to($port);
		local $SIG{PIPE} = 'IGNORE';
		my ($i, $started, $data) = (150, time, '');
		syswrite $s, substr($bytes, 0, $i);
		wait_until { syswrite $s, substr($bytes, $i++, 1); $data = read_exactly($s, 1, 0.1); length $data } 8;
		my $lasted = time - $started;
		$data .= (read_to_end($s, 5))[0];
		my @a = answers($data);
		is($a[0][0], 408, "dripping $name: 408") or diag($data);
		like($a[0][2], qr/-32003.*within $ms ms/, "dripping $name: says the limit");
		cmp_ok($lasted, '>=', 0.0009 * $ms, "dripping $name: not before its time");
		cmp_ok($lasted, '<', 5 * slow_factor(), "dripping $name: not long after");
	}
	my $silent = connect_to($port);
	my ($data, $end) = read_to_end($silent, 8);
	is($end, 'eof', 'a silent client is cut');
	is($data, '', 'without a word');
	serves_on($d, 'dripping');
	$d->stop;
}

# The answer that nobody reads; the kernel must not hold all of it either, so the reader's buffer stays small
{
	my $d = echo_start(timeout => 1500 * slow_factor());
	socket my $s, AF_INET, SOCK_STREAM, 0 or die "socket: $!";
	setsockopt $s, SOL_SOCKET, SO_RCVBUF, 4096 or die "SO_RCVBUF: $!";
	connect $s, pack_sockaddr_in($d->ready('port'), INADDR_LOOPBACK) or die "connect: $!";
	my $big = request('echo', { big => 'x' x 4000000 });
	my $at = 0;
	while ($at < length $big) { $at += syswrite $s, $big, 65536, $at }
	ok($d->wait_log(qr/SERVING>WRITING/), 'an answer is being written to one who does not read');
	ok($d->wait_log(qr/WRITING>GONE why="deadline"/, 8), 'and given up');
	serves_on($d, 'a reader that does not read');
	$d->stop;
}

# The cap: idle connections make room, working ones do not
{
	my $d = echo_start(max => 4);
	my $port = $d->ready('port');
	my @idle = map { connect_to($port) } 1 .. 4;
	ok((wait_until { $d->fds == $d->{base_fds} + 4 }), 'four silent connections');
	my ($end, @a) = exchange($port, request('echo', { n => 5 }, head => "Connection: close\r\n"));
	is($a[0][0], 200, 'a fifth one is served');
	is((read_to_end($idle[0], 5))[1], 'eof', 'the one that was silent longest made room');
	syswrite $idle[3], request('echo', { n => 'four' });
	like(read_until($idle[3], qr/"n":"four"/), qr/"n":"four"/, 'the youngest is still there');
	close $_ for @idle;
	echo_fds_settle($d, 'idle connections gone');

	my ($began, $ms) = (time, 1500 * slow_factor());
	my @busy = map { my $s = connect_to($port); syswrite $s, request('slow', { ms => $ms }, id => $_); $s } 1 .. 4;
	ok((wait_until { $d->count_log(qr/BODY>SERVING why="slow"/) == 4 }), 'four at work');
	($end, @a) = exchange($port, request('echo', { n => 5 }, head => "Connection: close\r\n"), 10);
	is($a[0][0], 200, 'a fifth one is served');
	cmp_ok(time - $began, '>', 0.0009 * $ms, 'when there was room');
	cmp_ok($d->count_log(qr/err=full/), '>=', 1, 'the log says that the cap was reached');
	like(read_until($_, qr/"result":"late"/), qr/"result":"late"/, 'those at work were not touched') for @busy;
	close $_ for @busy;
	serves_on($d, 'the cap');
	$d->stop;
}

# Strangers who do not go on with their TLS handshake take all places: one of them makes room
{
	my $d = echo_start(tls => 'hd-1', own => 'hd-1', max => 4);
	my $port = $d->ready('port');
	my @strangers = map { connect_to($port) } 1 .. 4;
	syswrite $strangers[1], "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . 'r' x 20;
	ok((wait_until { $d->fds == $d->{base_fds} + 4 }), 'four that do not speak');
	my $r = rpc("https://hd-1:$port/jsonrpc", 'echo', { n => 5 }, cert => 'hd-1');
	is(($r->{result} // {})->{n}, 5, 'a fifth one with a certificate is served');
	is($d->count_log(qr/HANDSHAKE>GONE why="deadline"/), 0, 'before the deadline of the others');
	is($d->count_log(qr/HANDSHAKE>GONE why="made room/), 1, 'one of them made room');
	close $_ for @strangers;
	serves_on($d, 'strangers', cert => 'hd-1');
	$d->stop;
}

# ... also where a byte of it comes while that is decided
SKIP: {
	skip "gcc's sanitizer wants to be loaded first: use clang's", 4 if `ldd '@{[ build() ]}/t/unit/rpc_echo'` =~ /libasan/;
	local $ENV{LD_PRELOAD} = build() . '/t/fail/unread.so';
	my $d = echo_start(tls => 'hd-1', own => 'hd-1', max => 4);
	delete local $ENV{LD_PRELOAD};
	my $port = $d->ready('port');
	my @strangers = map { connect_to($port) } 1 .. 4;
	ok((wait_until { $d->fds == $d->{base_fds} + 4 }), 'four whose bytes come at the worst moment');
	my $r = rpc("https://hd-1:$port/jsonrpc", 'echo', { n => 5 }, cert => 'hd-1');
	is(($r->{result} // {})->{n}, 5, 'a fifth one is served');
	close $_ for @strangers;
	serves_on($d, 'bytes at the worst moment', cert => 'hd-1');
	$d->stop;
}

# Strangers who send rubbish, and then stay to hear nothing: they make room as well
{
	my $d = echo_start(tls => 'hd-1', own => 'hd-1', max => 4);
	my $port = $d->ready('port');
	my @strangers = map { my $s = connect_to($port); syswrite $s, "GET / HTTP/1.1\r\n\r\n"; $s } 1 .. 4;
	ok((wait_until { $d->count_log(qr/HANDSHAKE>LINGER/) == 4 }), 'four that do not speak TLS');
	my $r = rpc("https://hd-1:$port/jsonrpc", 'echo', { n => 5 }, cert => 'hd-1');
	is(($r->{result} // {})->{n}, 5, 'a fifth one with a certificate is served');
	is($d->count_log(qr/LINGER>GONE why="made room/), 1, 'one of them made room');
	close $_ for @strangers;
	serves_on($d, 'rubbish', cert => 'hd-1');
	$d->stop;
}

# Descriptors used up: accepting pauses, nothing spins, and it goes on afterwards
{
	my $dir = tmp();
	my $d = start('few', [ 'sh', '-c', 'ulimit -n 24; exec "$0"', build() . '/t/unit/rpc_echo' ]);
	$d->{base_fds} = $d->ready('fds');
	my @many = map { connect_to($d->ready('port')) } 1 .. 30;
	ok($d->wait_log(qr/err=paused/), 'out of descriptors: accepting pauses');
	my $cpu = sub { my @f = split ' ', read_file('/proc/' . $d->pid . '/stat'); return $f[13] + $f[14] };
	my $before = $cpu->();
	my $until = time + 0.5;
	wait_until { time > $until } 2;
	cmp_ok($cpu->() - $before, '<', 25, 'and does not spin');
	close $_ for @many;
	serves_on($d, 'out of descriptors');
	$d->stop;
}

# Big bodies held back: together they may take 128 MiB, the next one is told to come again
{
	my $d = echo_start();
	my $port = $d->ready('port');
	my $bytes = substr request('', {}, body => ' ' x 4194304), 0, -1;
	local $SIG{PIPE} = 'IGNORE';
	for my $round (1, 2) {
		my (@held, $refused);
		for (1 .. 40) {
			my $s = connect_to($port);
			my $at = 0;
			while ($at < length $bytes) { $at += syswrite($s, $bytes, 262144, $at) // last }
			$refused = read_until($s, qr/-32001/, $_ > 33 ? 10 : 1) if $_ > 32;
			last if $refused;
			push @held, $s;
		}
		like($refused, qr/^HTTP\/1.1 503 .*-32001/s, "round $round: over the sum of all bodies: 503");
		cmp_ok(scalar @held, '>=', 30, "round $round: not before");
		close $_ for @held;
		serves_on($d, "round $round of big bodies");
		next if read_file(build() . '/config.h') =~ /define HYPER_SANITIZE/; # it keeps freed memory on purpose
		cmp_ok($d->rss, '<', 40_000, "round $round: memory returned");
	}
	$d->stop;
}

# Rate limits: excess is accepted and closed at once
{
	my $d = echo_start(rate => '3/3600000');
	my $port = $d->ready('port');
	my @status = map { my ($end, @a) = exchange($port, request('echo', {}, head => "Connection: close\r\n")); $a[0][0] // $end } 1 .. 5;
	is_deeply([ @status[ 0 .. 2 ] ], [ 200, 200, 200 ], 'three in an hour are served');
	like("@status[3, 4]", qr/^(eof|reset|error.*) (eof|reset|error.*)$/, 'the next ones are closed');
	echo_fds_settle($d, 'rate limits');
	ok($d->wait_log(qr/err=rate peer=127\.0\.0\.1:\d+/), 'and named in the log');
	$d->stop;
}

# Clients that go while their call is at work, over TCP and TLS; then the server is stopped with calls pending.
for my $tls (0, 1) {
	my $d = echo_start($tls ? (tls => 'hd-1', own => 'hd-1') : ());
	my $port = $d->ready('port');
	my $what = $tls ? 'TLS' : 'TCP';
	my $dial = sub { return $tls ? tls_connect($port, 'hd-1') // die $IO::Socket::SSL::SSL_ERROR : connect_to($port) };
	for my $how ('fin', 'reset', 'mid-body', 'mid-answer') {
		for (1 .. 3) {
			my $s = $dial->();
			setsockopt $s, 1, 13, pack 'll', 1, 0 if $how eq 'reset'; # SO_LINGER: on, 0
			my $bytes = request($how eq 'mid-answer' ? 'echo' : 'slow', { ms => 300, pad => 'x' x ($how eq 'mid-answer' ? 2000000 : 10) });
			$bytes = substr $bytes, 0, length($bytes) - 5 if $how eq 'mid-body';
			my $at = 0;
			while ($at < length $bytes) { $at += syswrite($s, $bytes, 16384, $at) // last }
			if ($how eq 'mid-answer') { sysread $s, my $some, 100 }
			$tls ? $s->close(SSL_no_shutdown => 1) : close $s;
		}
	}
	serves_on($d, "$what clients that go", cert => $tls ? 'hd-1' : undef);
	my $before = rss_of($d->pid);
	my @never = map { my $s = $dial->(); syswrite $s, request('never', {}); $s } 1 .. 5;
	ok((wait_until { $d->count_log(qr/SERVING why="never"/) == 5 }), "$what: five calls pending");
	close shift @never for 1, 2;
	is($d->stop, 0, "$what: stopped with calls pending, answered late");
	is((read_to_end($_, 5))[1], 'eof', "$what: their clients see the end") for @never;
}
hyper_done();
