#!/usr/bin/perl
# Guards: a living reader that takes nothing for longer than public.user_timeout is no vanished peer: it gets every byte when it goes on, and its writer sees nothing but a pause; idle_timeout is what ends it.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

# Writes until nothing is taken any more; the bytes.
sub fill {
	my ($sock) = @_;
	my ($sent, $since) = ('', time);
	$sock->blocking(0);
	while (time - $since < 0.5) {
		my $data = pack 'N*', map { length($sent) + $_ } 1 .. 16384;
		my $w = syswrite $sock, $data;
		($sent, $since) = ($sent . substr($data, 0, $w), time) if $w;
		Time::HiRes::sleep(0.01) if !$w;    # lasts: the stall is what is waited for
	}
	$sock->blocking(1);
	return $sent;
}

for my $copy ('false', 'true') {
	my $p = proxy(workers => 1, more => "user_timeout = 0.5; copy_mode = $copy;");
	my ($reader, $writer, $session) = $p->pair;
	my ($reader2, $writer2, $session2) = $p->pair;
	my @sent = map { fill($_) } $writer, $writer2;
	cmp_ok(length $sent[0], '>', 65536, "copy_mode $copy: the window is shut");
	select undef, undef, undef, 4 * slow_factor();    # lasts: eight times user_timeout
	is($p->{d}->count_log(qr/ ended pair=/), 0, "copy_mode $copy: a reader that takes nothing for 8 x user_timeout stays") or diag($p->{d}->log_tail);
	# One reads on, and what else the writer has comes too; the other one is alive and half closed.
	shutdown $writer2, 1;
	my $more = 'm' x 100_000;
	my $pid = fork // die "fork: $!";
	if (!$pid) { send_all($writer, $more); require POSIX; POSIX::_exit(0) }
	my $got = read_exactly($reader, length($sent[0]) + length($more), 30);
	waitpid $pid, 0;
	is(sha256_hex($got), sha256_hex($sent[0] . $more), "copy_mode $copy: every byte once it reads on");
	shutdown $writer, 1;
	is((read_to_end($reader, 10))[1], 'eof', "copy_mode $copy: and then the end");
	my ($data, $end) = read_to_end($reader2, 30);
	is(sha256_hex($data), sha256_hex($sent[1]), "copy_mode $copy: the half-closed one as well");
	is($end, 'eof', "copy_mode $copy: to its end");
	close $_ for $reader, $writer, $reader2, $writer2;
	is($p->wait_ended($_)->{reason}, 'closed', "copy_mode $copy: which is clean") for $session, $session2;
	is($p->{d}->stop, 0, 'it stops cleanly');
}

# What ends it is the time-out for pairs over which nothing is delivered
my $p = proxy(workers => 1, more => 'user_timeout = 0.5; idle_timeout = ' . 3 * slow_factor() . ';');
my ($reader, $writer, $session) = $p->pair;
fill($writer);
my $end = $p->wait_ended($session);
is($end->{reason}, 'idle', 'idle_timeout ends it');
is((read_to_end($writer))[1], 'reset', 'with a reset');
is($p->{d}->stop, 0, 'it stops cleanly');

hyper_done();
