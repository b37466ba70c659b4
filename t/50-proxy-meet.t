#!/usr/bin/perl
# Guards: whoever comes first and at whichever worker, the two parties of a token meet, once, and nobody else gets in.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $p = proxy(workers => 3, accept_timeout => 2);
close $_ for $p->pair;
$p->note_fds;

# B before the answer, B after it, A first: the same to the proxy, which only sees tokens
for my $case ([ 'before the answer', 1 ], [ 'after the answer', 0 ]) {
	my ($name, $early) = @$case;
	my $ask = $p->ask;
	my $told = $p->told;
	my $b = $early ? $p->come($told->token) : undef;
	$told->answer if !$early;
	my $r;
	if ($early) {
		$p->{d}->wait_log(qr/info parked session=$told->{id} /) // fail('not parked');
		$told->answer;
	}
	$r = $ask->answer;
	$b //= $p->come($told->token);
	$p->wait_parked($r->{result}{session});
	is(exists $r->{result}{timeline}{parked} ? 1 : 0, $early, "first $name: `parked` is in the timeline as it was") or diag(json_text($r));
	my $a = $p->come($told->token);
	$p->wait_pair($r->{result}{session});
	joined($a, $b, "first $name: both sides talk");
	close $_ for $a, $b;
	is($p->wait_ended($r->{result}{session})->{reason}, 'closed', "first $name: ended cleanly");
	$p->token_is_secret($told->token, "first $name");
}

# Each in the worker we choose: the others stand still meanwhile
for my $w ([ 0, 0 ], [ 0, 1 ], [ 2, 1 ], [ 2, 2 ]) {
	my ($first, $second, $session) = $p->pair(workers => $w);
	my ($pair, $worker, $first_worker) = $p->wait_pair($session);
	is("$first_worker $worker", "@$w", "first at worker $w->[0], second at $w->[1]: the log names both");
	joined($second, $first, "workers @$w: both sides talk");
	# payload that comes with the end of the connection
	send_all($first, 'last');
	close $first;
	is((read_to_end($second))[0], 'last', "workers @$w: the last bytes arrive");
	close $second;
	my $end = $p->wait_ended($session);
	is($end->{worker}, $w->[1], "workers @$w: the pair ends at the second's worker");
	is("$end->{bytes_ab} $end->{bytes_ba}", '4 9', "workers @$w: its bytes are counted");
}

# A third one, and the token again after the end
my ($token, $session) = $p->broker;
my ($a, $b) = ($p->come($token), $p->come($token));
$p->wait_pair($session);
my $third = $p->come($token);
is((read_to_end($third))[1], 'eof', 'a third connection is closed');
joined($a, $b, 'the pair does not notice');
close $_ for $a, $b;
$p->wait_ended($session);
isnt((read_to_end($p->come($token)))[1], 'timeout', 'a used token is unknown');

# Strangers
isnt((read_to_end($p->come("\xff" x 32)))[1], 'timeout', 'an unknown token is closed');
isnt((read_to_end($p->come(pack('H*', '00' x 32))))[1], 'timeout', 'and zeros');
my $short = $p->come('x' x 31);
shutdown $short, 1;
isnt((read_to_end($short))[1], 'timeout', 'a token of 31 bytes and an end is closed');
my $silent = $p->come('');
my $dripping = $p->come('x');
isnt((read_to_end($_))[1], 'timeout', 'a silent one is closed after accept_timeout') for $silent, $dripping;
$p->{d}->wait_log(qr/refused .*reason=$_/) // fail("no line refused reason=$_") for qw(silent short_token unknown_token);

# Cut after each of its bytes: the first piece is there when a worker accepts, and has been read when the rest is sent.
my $q = proxy(workers => 2, token_timeout => 20);
# Are so many bytes in the proxy's end of each connection?
sub lie_there {
	my ($n, @s) = @_;
	my $ends = join ' or ', map { 'dport = :' . $_->sockport } @s;
	my @unread = (run_program([ 'ss', '-tnH', "sport = :$q->{port} and ( $ends )" ]))[1] =~ /^ESTAB +(\d+) /mg;
	return @unread == @s && !grep { $_ != $n } @unread;
}
for my $n (1 .. 31) {
	my ($token, $session) = $q->broker;
	kill 'STOP', $q->worker_pids;
	my @s = map { $q->come(substr $token, 0, $n) } 1, 2;
	wait_until { lie_there($n, @s) } or die 'no piece arrived';
	kill 'CONT', $q->worker_pids;
	wait_until { lie_there(0, @s) } or fail("a first piece of $n is read");
	send_all($s[$_], substr($token, $n) . "glued $_") for 0, 1;
	my ($one, $two) = (read_exactly($s[1], 7), read_exactly($s[0], 7));
	is("$one $two", 'glued 0 glued 1', "token in pieces of $n and " . (32 - $n) . ', payload glued to it');
	close $_ for @s;
}

# In pieces, with payload glued to the last one
($token, $session) = $p->broker;
my $hello = 'HELLO' x 1000;
my $x = $p->come(substr $token, 0, 1);
send_all($x, substr $token, 1, 16);
send_all($x, substr($token, 17) . $hello);
$p->wait_parked($session);
my $y = $p->come($token . 'other');
is(read_exactly($y, 5000), $hello, 'payload glued to the first token arrives');
is(read_exactly($x, 5), 'other', 'and that of the second');
close $_ for $x, $y;

$p->wait_ended($session);
$p->token_is_secret($token, 'meeting');
$p->settled;
$p->fds_are_back('all meetings');
is($p->{d}->count_log(qr/proxy\[\d+\] info ended pair=/), $p->{d}->count_log(qr/proxy\[\d+\] info pair session=/), 'one end for each pair');
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
