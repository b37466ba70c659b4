#!/usr/bin/perl
# Guards: public.user_timeout reaches the pairs' sockets: a reader whose window stays shut is reset after it, and with 0 it is kept.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

# Writes until nothing is taken any more; the bytes.
sub fill {
	my ($sock) = @_;
	my ($n, $data, $since) = (0, 'f' x 65536, time);
	$sock->blocking(0);
	while (time - $since < 0.3) {
		my $w = syswrite $sock, $data;
		($n, $since) = ($n + $w, time) if $w;
		Time::HiRes::sleep(0.01) if !$w;    # lasts: the stall is what is waited for
	}
	$sock->blocking(1);
	return $n;
}

for my $seconds (1, 0) {
	my $p = proxy(workers => 1, more => "user_timeout = $seconds;");
	my ($reader, $writer, $session) = $p->pair;
	my $sent = fill($writer);
	cmp_ok($sent, '>', 65536, "user_timeout $seconds: $sent bytes went before the window was shut");
	my $ended = wait_until { $p->{d}->count_log(qr/ proxy\[\d+\] info ended .*session=$session .*reason=reset/) } $seconds ? 20 : 4;
	if ($seconds) {
		ok($ended, 'user_timeout 1: a reader that takes nothing is reset') or diag($p->{d}->log_tail);
		isnt((read_to_end($writer))[1], 'eof', 'user_timeout 1: its peer sees no end');
	} else {
		ok(!$ended, 'user_timeout 0: a reader that takes nothing for seconds stays');
		shutdown $writer, 1;
		my ($data, $end) = read_to_end($reader, 30);
		is(length $data, $sent, 'user_timeout 0: all bytes come once it reads again');
		is($end, 'eof', 'user_timeout 0: and then the end');
	}
	close $_ for $reader, $writer;
	is($p->{d}->stop, 0, 'it stops cleanly');
}
hyper_done();
